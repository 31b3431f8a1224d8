"""Which folders are the package: those that setuptools finds, and the measured figures.

`results/` lies beside the package in the repository and inside it in a wheel, so that a notebook in Colab has it too.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tinyvla", "tinyvla.*"]), "tinyvla.results"],
    package_dir={"tinyvla.results": "results"},
)
