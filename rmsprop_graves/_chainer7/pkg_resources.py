"""The little of setuptools' pkg_resources that Chainer uses, on importlib.metadata.

Chainer asks which CuPy is installed when it is imported, and `chainer.testing` which of a test's
requirements are there. Nothing outside Chainer's own modules sees this one.
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement


class ResolutionError(Exception):
    """A requirement is not met."""


class DistributionNotFound(ResolutionError):  # noqa: N818 - the name that Chainer asks for
    """The required distribution is not installed."""


class VersionConflict(ResolutionError):  # noqa: N818
    """The required distribution is installed in another version."""


def get_distribution(name: str) -> metadata.Distribution:
    """The installed distribution of that name."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise DistributionNotFound(f"{name} is not installed") from None


def require(*requirements: str) -> list[metadata.Distribution]:
    """The distributions that meet requirements such as ``'cupy>=7.7.0,<8.0.0'``.

    Raises:
        DistributionNotFound: One is not installed.
        VersionConflict: One is installed in another version.
    """
    found = []
    for requirement in map(Requirement, requirements):
        distribution = get_distribution(requirement.name)
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            raise VersionConflict(f"{requirement} is required, {distribution.version} is installed")
        found.append(distribution)
    return found


class WorkingSet:
    """The installed distributions."""

    def require(self, *requirements: str) -> list[metadata.Distribution]:
        """As the function of that name."""
        return require(*requirements)
