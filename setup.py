"""What is installed elsewhere: the sampler and its way into sentence-transformers.

A study is run from a clone, where `make` puts the folder itself on the path and the code is `lib`.
As a top-level name in somebody else's environment `lib` would collide, so the wheel has these
modules of it as `batch_composition`, and nothing that only a study needs.
"""

from setuptools import setup
from setuptools.command.build_py import build_py

MODULES = {
    "batch_composition.__init__",
    "batch_composition.sampler",
    "batch_composition.bridges.__init__",
    "batch_composition.bridges.pairs",
    "batch_composition.bridges.sentence_transformers",
}


class BuildPy(build_py):
    """Of a package's modules only those listed."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """(package, module, file) of each, as the command of setuptools gives them."""
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if f"{package}.{entry[1]}" in MODULES]


setup(cmdclass={"build_py": BuildPy})
