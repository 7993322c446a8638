"""The part of setuptools' pkg_resources that Chainer uses, implemented with importlib.metadata.

When Chainer is imported it asks for the version of CuPy, and `chainer.testing` asks whether a test's requirements are
met. Only Chainer's own modules import this stand-in.
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
    """Returns an installed distribution.

    Raises:
        DistributionNotFound: It is not installed.
    """
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise DistributionNotFound(f"{name} is not installed") from None


def require(*requirements: str) -> list[metadata.Distribution]:
    """Returns the distributions that meet requirements such as ``'cupy>=7.7.0,<8.0.0'``.

    Raises:
        DistributionNotFound: A distribution is not installed.
        VersionConflict: The installed version does not meet a requirement.
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
        """Calls the function :func:`require`."""
        return require(*requirements)
