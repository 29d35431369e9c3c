"""What users install: the wheel, in a virtual environment of its own, so that nothing of this tree can help out."""

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def install(folder: Path) -> Path:
    """Build the wheel, install it under the folder, and return the path of its `stokehold`.

    Its dependencies are those of this environment, which are the locked ones; its code is the wheel's alone.
    """
    folder.mkdir(exist_ok=True)
    _run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder])
    _run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("stokehold-*.whl")
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel])
    own = Path(_run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (own / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if not module_of(python).is_relative_to(own):
        raise RuntimeError(f"stokehold is imported from {module_of(python)}, not from the wheel in {own}")
    return python.parent / "stokehold"


def module_of(python: Path) -> Path:
    """Where this interpreter finds the package."""
    return Path(_run([python, "-c", "import stokehold; print(stokehold.__file__)"], cwd=python.parent).strip())


def _run(command: Sequence[str | Path], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
