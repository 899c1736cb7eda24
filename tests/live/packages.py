"""Programs from the distribution's packages."""

import os
import shutil
import subprocess

from tests.live.processes import Unavailable


def install(package: str) -> None:
    """Install a package, when we are root and there is apt-get.

    Raises:
        Unavailable: it cannot be installed here.
    """
    if os.geteuid() != 0:
        raise Unavailable("not installed, and only root may install it")
    if shutil.which("apt-get") is None:
        raise Unavailable("not installed, and there is no apt-get to install it with")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", package],
    ):
        done = subprocess.run(command, env=environment, check=False, capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Unavailable(f"the distribution's package {package} could not be installed")
