"""How long a schedule takes on a `Network`: closed forms, recurrences, replay, and GOAL under LogGOPS. Imports physics."""
