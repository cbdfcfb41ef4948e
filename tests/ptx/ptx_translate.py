"""PTX of one kernel -> C++ of one CUDA thread.

Only the instructions that busbw's kernels are compiled to are known; any other is an error, so nothing is skipped silently.
Registers become unsigned integers of their width; `as<T>(register)` reads one as a number of type T and `set(register, T)`
writes one (cuda_thread.h). What an access to memory means (weak, acquire, release ...) is decided there too.

    add.s64  %rd3, %rd1, %rd2;          ->  set(rd3, (int64_t)(as<uint64_t>(rd1) + as<uint64_t>(rd2)));
    @%p1 bra $L__BB0_2;                 ->  if (p1) goto L__BB0_2;
    ld.acquire.gpu.global.s64 ...       ->  set(rd4, me.load_acquire<int64_t>(as<uint64_t>(rd5) + 8));
"""

import re

INTEGER = {"u": "uint{}_t", "s": "int{}_t", "b": "uint{}_t"}
SPECIAL = {
    "%tid.x": "me.thread", "%ntid.x": "me.threads", "%ctaid.x": "me.block", "%nctaid.x": "me.blocks", "%ctaid.y": "me.block_y",
    "%globaltimer": "me.nanoseconds()",
}  # fmt: skip
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED_COMPARE = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
WRAPPING = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^"}  # of integers: in unsigned arithmetic
FLOATING = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


class Unknown(ValueError):
    """An instruction, or a form of one, that is not translated."""


def bits(kind: str) -> int:
    return int(re.sub(r"\D", "", kind))


def cpp(kind: str) -> str:
    """The C++ type of PTX's s64, b16, f32, pred."""
    if kind == "pred":
        return "bool"
    if kind[0] == "f":
        return {"f32": "float", "f64": "double"}[kind]
    return INTEGER[kind[0]].format(bits(kind))


def unsigned(kind: str) -> str:
    return INTEGER["u"].format(bits(kind))


def kernels(ptx: str) -> list[str]:
    return re.findall(r"\.visible \.entry (\w+)\(", ptx)


def translate(ptx: str, kernel: str, name: str) -> str:
    """C++ definitions of `name` (the body for one thread), and of its numbers of parameters and bytes of shared memory."""
    return _Kernel(ptx, kernel).function(name)


def _operands(text: str) -> list[str]:
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text)]


class _Kernel:
    def __init__(self, ptx: str, kernel: str):
        start = ptx.index(f".visible .entry {kernel}(")
        end = ptx.find(".visible .entry", start + 10)
        head, body = ptx[start : end if end > 0 else len(ptx)].split("{", 1)
        self.parameters = {name: i for i, name in enumerate(re.findall(r"\.param [^,)]*?(\w+)(?=[,\n)])", head))}
        self.body = re.sub(r"//[^\n]*", "", body[: body.rindex("}")])
        self.shared: dict[str, int] = {}
        self.shared_bytes = 0
        self.declared: list[str] = []

    def function(self, name: str) -> str:
        lines = []
        for statement in self._statements():
            if statement.startswith("."):
                self._directive(statement)
            elif statement.endswith(":"):
                lines.append(f"{statement[1:]}")
            else:
                lines.append("  " + self._guarded(statement))
        jumped_to = {line.split()[-1] for line in re.findall(r"goto \w+", "\n".join(lines))}
        lines = [
            line + ";" if line[:-1] in jumped_to else line for line in lines if line[0] == " " or line[:-1] in jumped_to
        ]
        body = "\n".join([*self.declared, *lines])
        return (
            f"enum {{ {name}_parameters = {len(self.parameters)}, {name}_shared_bytes = {self.shared_bytes} }};\n"
            f"static void {name}(Thread& me, const uint64_t* parameter) {{\n{body}\n}}\n"
        )

    def _statements(self):
        """Labels with their colon, and what stands between semicolons."""
        scopes = re.compile(
            r"^\s*[{}]\s*$", re.MULTILINE
        )  # of inline assembly's registers; nothing else is between braces
        for piece in re.split(r";|(?<=:)\s*\n", scopes.sub("", self.body)):
            if text := " ".join(piece.split()):
                yield text

    def _directive(self, text: str) -> None:
        if found := re.fullmatch(r"\.reg \.(\w+) %?(\w+)(?:<(\d+)>)?", text):
            kind, stem, count = found.groups()
            names = [f"{stem}{i}" for i in range(int(count))] if count else [stem]
            self.declared.append(
                f"  {'bool' if kind == 'pred' else unsigned(kind)} {', '.join(f'{n} = 0' for n in names)};"
            )
        elif found := re.fullmatch(r"\.shared \.align (\d+) \.(\w+) (\w+)(?:\[(\d+)\])?", text):
            align, kind, name, count = found.groups()
            self.shared[name] = -(-self.shared_bytes // int(align)) * int(align)
            self.shared_bytes = self.shared[name] + int(count or 1) * bits(kind) // 8
        elif not text.startswith(".pragma"):
            raise Unknown(text)

    # Operands.

    def read(self, operand: str, kind: str) -> str:
        """A C++ expression of type cpp(kind)."""
        operand = operand.strip()
        if operand in SPECIAL:
            value = SPECIAL[operand]
        elif operand.startswith("!"):
            return "!" + self.read(operand[1:], kind)
        elif operand.startswith("%"):
            value = operand[1:]
        elif found := re.fullmatch(r"0[fFdD]([0-9a-fA-F]+)", operand):
            value = f"uint{4 * len(found.group(1))}_t(0x{found.group(1)}ull)"
        elif re.fullmatch(r"-?\d+U?|-?0x[0-9a-fA-F]+U?", operand):
            number = int(operand.rstrip("U"), 0)
            if kind == "pred":
                return "true" if number else "false"
            value = f"uint64_t({number % 2**64}ull)"
        elif operand in self.shared:
            value = f"uint64_t(SHARED_WINDOW + {self.shared[operand]})"
        else:
            raise Unknown(f"operand {operand}")
        return value if kind == "pred" else f"as<{cpp(kind)}>({value})"

    def write(self, operand: str, kind: str, value: str) -> str:
        if operand == "_":
            return ""
        if not operand.startswith("%"):
            raise Unknown(f"result {operand}")
        return f"{operand[1:]} = {value};" if kind == "pred" else f"set({operand[1:]}, ({cpp(kind)})({value}));"

    def address(self, operand: str) -> str:
        found = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand)
        if not found:
            raise Unknown(f"address {operand}")
        base, offset = found.groups()
        return f"{self.read(base, 'u64')} + {int(offset or 0)}ll"

    # Instructions.

    def _guarded(self, text: str) -> str:
        found = re.fullmatch(r"@(!?%\w+) (.*)", text)
        guard, text = (f"if ({self.read(found.group(1), 'pred')}) ", found.group(2)) if found else ("", text)
        head, _, rest = text.partition(" ")
        opcode, *modifiers = head.split(".")
        translate_one = getattr(self, f"_{opcode}", None)
        if translate_one is None and opcode in ("add", "sub", "mul", "div", "min", "max", "and", "or", "xor"):
            translate_one = self._arithmetic
        if translate_one is None:
            raise Unknown(text)
        try:
            return f"{guard}{{ {translate_one(opcode, modifiers, _operands(rest))} }}"
        except (KeyError, IndexError, ValueError) as error:
            raise Unknown(f"{text}: {error!r}") from error

    def _ret(self, opcode, modifiers, x):
        return "return;"

    def _bra(self, opcode, modifiers, x):
        return f"goto {x[0][1:]};"

    def _bar(self, opcode, modifiers, x):
        if modifiers != ["sync"] or x != ["0"]:
            raise Unknown("a barrier that is not of the whole block")
        return "me.barrier();"

    def _fence(self, opcode, modifiers, x):
        if modifiers[0] != "acq_rel":
            raise Unknown("fence")
        return "me.fence();"

    def _cp(self, opcode, modifiers, x):
        if modifiers == ["async", "wait_all"]:
            return "me.finish_copies();"
        if modifiers != ["async", "cg", "shared", "global"] or x[2] != "16":
            raise Unknown("cp")
        return f"me.copy_16({self.address(x[0])}, {self.address(x[1])});"

    def _memory(self, modifiers):
        """(method's suffix, C++ space, vector's lanes, type)"""
        strength = [m for m in modifiers if m in ("acquire", "release", "relaxed", "acq_rel")]
        # A volatile access is one that the compiler may not move: no synchronisation, so races of it are to be found.
        space = "SHARED" if "shared" in modifiers else "GLOBAL" if "global" in modifiers else "GENERIC"
        lanes = 4 if "v4" in modifiers else 2 if "v2" in modifiers else 1
        known = {
            "acquire",
            "release",
            "relaxed",
            "acq_rel",
            "volatile",
            "shared",
            "global",
            "v2",
            "v4",
            "gpu",
            "sys",
            "add",
        }
        if set(modifiers[:-1]) - known or (strength and (space != "GLOBAL" or lanes > 1)):
            raise Unknown("memory")
        return (strength or ["weak"])[0], space, lanes, modifiers[-1]

    def _ld(self, opcode, modifiers, x):
        if modifiers[0] == "param":
            return self.write(x[0], modifiers[1], f"parameter[{self.parameters[x[1][1:-1]]}]")
        strength, space, lanes, kind = self._memory(modifiers)
        kind = kind.replace("f", "b")
        if strength != "weak":
            return self.write(x[0], kind, f"me.load_{strength}<{cpp(kind)}>({self.address(x[1])})")
        results = _operands(x[0][1:-1]) if lanes > 1 else [x[0]]
        loads = [
            self.write(result, kind, f"me.load<{cpp(kind)}, {space}>(at + {lane * bits(kind) // 8})")
            for lane, result in enumerate(results)
        ]
        return f"const uint64_t at = {self.address(x[1])}; me.aligned(at, {lanes * bits(kind) // 8}); {' '.join(loads)}"

    def _st(self, opcode, modifiers, x):
        strength, space, lanes, kind = self._memory(modifiers)
        kind = kind.replace("f", "b")
        if strength != "weak":
            return f"me.store_{strength}<{cpp(kind)}>({self.address(x[0])}, {self.read(x[1], kind)});"
        sources = _operands(x[1][1:-1]) if lanes > 1 else [x[1]]
        stores = [
            f"me.store<{cpp(kind)}, {space}>(at + {lane * bits(kind) // 8}, {self.read(source, kind)});"
            for lane, source in enumerate(sources)
        ]
        return (
            f"const uint64_t at = {self.address(x[0])}; me.aligned(at, {lanes * bits(kind) // 8}); {' '.join(stores)}"
        )

    def _atom(self, opcode, modifiers, x):
        strength, _, _, kind = self._memory(modifiers)
        if "add" not in modifiers or strength not in ("weak", "relaxed", "acq_rel"):
            raise Unknown("atom")
        order = "__ATOMIC_ACQ_REL" if strength == "acq_rel" else "__ATOMIC_RELAXED"
        return self.write(x[0], kind, f"me.add<{cpp(kind)}, {order}>({self.address(x[1])}, {self.read(x[2], kind)})")

    def _cvta(self, opcode, modifiers, x):
        if "shared" in modifiers:
            how = "to_shared" if "to" in modifiers else "from_shared"
            return self.write(x[0], "u64", f"me.{how}({self.read(x[1], 'u64')})")
        return self.write(x[0], "u64", self.read(x[1], "u64"))  # global addresses are generic ones

    def _mov(self, opcode, modifiers, x):
        kind = modifiers[-1].replace("f", "b")
        if x[0].startswith("{"):
            parts = _operands(x[0][1:-1])
            part = f"b{bits(kind) // len(parts)}"
            cut = (self.write(p, part, f"whole >> {i * bits(part)}") for i, p in enumerate(parts))
            return f"const {cpp(kind)} whole = {self.read(x[1], kind)}; {' '.join(cut)}"
        if x[1].startswith("{"):
            parts = _operands(x[1][1:-1])
            part = f"b{bits(kind) // len(parts)}"
            put = (f"({cpp(kind)}){self.read(p, part)} << {i * bits(part)}" for i, p in enumerate(parts))
            return self.write(x[0], kind, " | ".join(put))
        return self.write(x[0], kind, self.read(x[1], kind))

    def _arithmetic(self, opcode, modifiers, x):
        kind = modifiers[-1]
        if kind[0] == "f":
            if set(modifiers[:-1]) - {"rn"} or opcode not in FLOATING:
                raise Unknown(opcode)
            return self.write(x[0], kind, f"{self.read(x[1], kind)} {FLOATING[opcode]} {self.read(x[2], kind)}")
        if kind == "pred":
            return self.write(x[0], kind, f"{self.read(x[1], kind)} {WRAPPING[opcode]} {self.read(x[2], kind)}")
        if opcode == "mul":
            return self._product(modifiers, x, "")
        if len(modifiers) > 1:
            raise Unknown(opcode)
        if opcode in WRAPPING:
            as_unsigned = "u" + kind[1:]
            return self.write(
                x[0], kind, f"{self.read(x[1], as_unsigned)} {WRAPPING[opcode]} {self.read(x[2], as_unsigned)}"
            )
        a, b = self.read(x[1], kind), self.read(x[2], kind)
        return self.write(
            x[0], kind, {"div": f"{a} / {b}", "min": f"std::min({a}, {b})", "max": f"std::max({a}, {b})"}[opcode]
        )

    def _rem(self, opcode, modifiers, x):
        (kind,) = modifiers
        return self.write(x[0], kind, f"{self.read(x[1], kind)} % {self.read(x[2], kind)}")

    def _product(self, modifiers, x, plus):
        how, kind = modifiers
        if how == "lo":
            product = f"(uint64_t){self.read(x[1], kind)} * (uint64_t){self.read(x[2], kind)}"
            return self.write(x[0], kind, product + (plus and f" + {self.read(plus, 'u' + kind[1:])}"))
        if how != "wide":
            raise Unknown(f"mul.{how}")
        wide = f"{kind[0]}{2 * bits(kind)}"
        product = f"({cpp(wide)}){self.read(x[1], kind)} * ({cpp(wide)}){self.read(x[2], kind)}"
        return self.write(x[0], wide, product + (plus and f" + {self.read(plus, wide)}"))

    def _mad(self, opcode, modifiers, x):
        return self._product(modifiers, x, x[3])

    def _fma(self, opcode, modifiers, x):
        kind = modifiers[-1]
        return self.write(x[0], kind, f"std::fma({', '.join(self.read(y, kind) for y in x[1:4])})")

    def _neg(self, opcode, modifiers, x):
        (kind,) = modifiers
        return self.write(
            x[0], kind, f"-{self.read(x[1], kind)}" if kind[0] == "f" else f"0 - {self.read(x[1], 'u' + kind[1:])}"
        )

    def _not(self, opcode, modifiers, x):
        (kind,) = modifiers
        return self.write(x[0], kind, f"{'!' if kind == 'pred' else '~'}{self.read(x[1], kind)}")

    def _shl(self, opcode, modifiers, x):
        (kind,) = modifiers
        return self.write(x[0], kind, f"shift_left({self.read(x[1], kind)}, {self.read(x[2], 'u32')})")

    def _shr(self, opcode, modifiers, x):
        (kind,) = modifiers
        return self.write(x[0], kind, f"shift_right({self.read(x[1], kind)}, {self.read(x[2], 'u32')})")

    def _prmt(self, opcode, modifiers, x):
        if modifiers != ["b32"]:
            raise Unknown("prmt")
        return self.write(x[0], "b32", f"permute({', '.join(self.read(y, 'b32') for y in x[1:4])})")

    def _selp(self, opcode, modifiers, x):
        kind = modifiers[0].replace("f", "b")
        return self.write(x[0], kind, f"{self.read(x[3], 'pred')} ? {self.read(x[1], kind)} : {self.read(x[2], kind)}")

    def _setp(self, opcode, modifiers, x):
        how, *combined, kind = modifiers
        a, b = self.read(x[1], kind), self.read(x[2], kind)
        if kind[0] == "f":
            unordered = f"(std::isnan({a}) || std::isnan({b}))"
            if how in ("nan", "num"):
                holds = unordered if how == "nan" else f"!{unordered}"
            elif how.endswith("u") and how[:-1] in COMPARE:
                holds = f"{unordered} || {a} {COMPARE[how[:-1]]} {b}"
            else:
                holds = f"!{unordered} && {a} {COMPARE[how]} {b}"
        else:
            holds = f"{a} {(COMPARE | UNSIGNED_COMPARE)[how]} {b}"
        if combined:
            holds = (
                f"({holds}) {dict(zip(('and', 'or', 'xor'), ('&', '|', '^')))[combined[0]]} {self.read(x[3], 'pred')}"
            )
        return self.write(x[0], "pred", holds)

    def _cvt(self, opcode, modifiers, x):
        *how, to, of = modifiers
        if to in ("f16x2", "bf16x2") and of == "f32":  # the first operand goes to the upper half
            high, low = (f"(uint32_t){to[:-2]}_from_float({self.read(y, 'f32')})" for y in x[1:3])
            return self.write(x[0], "b32", f"{high} << 16 | {low}")
        if to in ("e4m3x2", "e5m2x2") and of == "f32" and "satfinite" in how:
            high, low = (f"(uint16_t){to[:-2]}_from_float({self.read(y, 'f32')})" for y in x[1:3])
            return self.write(x[0], "b16", f"{high} << 8 | {low}")
        if to == "f16x2" and of in ("e4m3x2", "e5m2x2"):
            both = self.read(x[1], "b16")
            high, low = (
                f"(uint32_t)f16_from_float(float_from_{of[:-2]}({byte}))" for byte in (f"{both} >> 8", f"{both} & 255")
            )
            return self.write(x[0], "b32", f"{high} << 16 | {low}")
        if of == "f32" and to in ("f16", "bf16") and how == ["rn"]:
            return self.write(x[0], "b16", f"{to}_from_float({self.read(x[1], 'f32')})")
        if to == "f32" and of in ("f16", "bf16"):
            return self.write(x[0], "f32", f"float_from_{of}({self.read(x[1], 'b16')})")
        if of[0] == "f" and to[0] != "f":
            if how != ["rzi"]:
                raise Unknown("cvt")
            return self.write(x[0], to, f"toward_zero<{cpp(to)}>({self.read(x[1], of)})")
        if set(how) - {"rn"}:
            raise Unknown("cvt")
        return self.write(x[0], to, self.read(x[1], of))
