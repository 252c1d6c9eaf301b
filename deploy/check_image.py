"""Builds the Dockerfile without Docker, enters what was built, and lets ``check_inside.py`` use it.

    make image-check                          # buildah, bubblewrap and, without a registry, mmdebstrap
    make image-check ARGS="--ca-bundle FILE"  # behind a proxy that signs with an authority of its own

As root or as any user who has subordinate ids (``/etc/subuid``). What runs inside has the image's file system
read-only, no network but its own loopback, and the image's user, environment, init and command.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
INSIDE = Path(__file__).with_name("check_inside.py")
IMAGE = "localhost/specsem:check"
STAND_IN = "localhost/specsem-base:stand-in"
TMP = "/tmp"  # noqa: S108 - the image's
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class Buildah:
    """buildah with a store of its own, which needs neither a daemon nor a file system that layers."""

    def __init__(self, store: Path, driver: str) -> None:
        store.mkdir(parents=True, exist_ok=True)
        self._command = ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run")]
        self._command += ["--storage-driver", driver]
        # What a build or a commit puts aside has the image's size, and /var/tmp may lack the room.
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(store)}

    def __call__(self, *args: str) -> None:
        """Run a command of buildah's."""
        subprocess.run([*self._command, *args], check=True, env=self._environment)

    def told(self, *args: str) -> str:
        """What a command of buildah's prints."""
        ran = subprocess.run(
            [*self._command, *args], check=True, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        return ran.stdout.strip()

    def has(self, image: str) -> bool:
        """Whether an image is in the store."""
        asked = [*self._command, "inspect", "--type", "image", image]
        return subprocess.run(asked, env=self._environment, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Build, enter, check, remove."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "image-check", help="needs some 25 GB")
    parser.add_argument("--storage-driver", default="vfs", help="overlay takes less room, where it works")
    parser.add_argument("--ca-bundle", type=Path, help="PEM file that the build trusts")
    parser.add_argument("--torch-index", default="", help="as the build argument TORCH_INDEX")
    parser.add_argument("--keep", action="store_true", help="keep the store, to look at it")
    parser.add_argument("--enter", metavar="TREE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    buildah = Buildah(args.store.resolve(), args.storage_driver)
    if args.enter:
        sys.exit(enter(Path(args.enter), config_of(buildah)))
    need("buildah", "bwrap")
    build(buildah, args.ca_bundle, args.torch_index)
    container = buildah.told("from", "--pull-never", IMAGE)
    status = mounted(buildah, container, args)
    buildah("rm", container)
    if not args.keep:
        buildah("rmi", "--all", "--force")
        shutil.rmtree(args.store, ignore_errors=True)
    sys.exit(status)


def build(buildah: Buildah, ca_bundle: Path | None, torch_index: str) -> None:
    """Build the image from the Dockerfile as it is."""
    trusted = ["--volume", f"{ca_bundle.resolve()}:{CERTIFICATES}:ro"] if ca_bundle else []
    arguments = {"BASE": base(buildah), "TORCH_INDEX": torch_index, "VERSION": "check", "COMMIT": "check"}
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    # Docker's format: that of OCI knows no health check. No layers: with vfs each is a whole copy.
    buildah(
        "build",
        "--pull-never",
        "--format=docker",
        "--layers=false",
        *trusted,
        *given,
        "--tag",
        IMAGE,
        str(ROOT),
    )


def base(buildah: Buildah) -> str:
    """The Dockerfile's base image; where no registry answers, Debian's own Python of the same release."""
    name: str = re.findall(r"^ARG BASE=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)[0]
    if buildah.has(STAND_IN):
        return STAND_IN
    try:
        buildah("pull", "--quiet", name)
    except subprocess.CalledProcessError:
        suite = name.rpartition("-")[2]
        print(f"No registry gives {name}: Debian's {suite} with its own python3 stands in.", flush=True)
    else:
        return name
    need("mmdebstrap")
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder, "base.tar"))
        packages = "--include=ca-certificates,python3,python3-venv"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", packages, suite, archive], check=True)
        container = buildah.told("from", "scratch")
        buildah("add", "--quiet", container, archive, "/")
    buildah("commit", "--quiet", "--rm", container, STAND_IN)
    return STAND_IN


def mounted(buildah: Buildah, container: str, args: argparse.Namespace) -> int:
    """The exit code of what ``enter`` does where the container's file system is."""
    again = [sys.executable, str(Path(__file__).resolve()), "--store", str(args.store.resolve())]
    again += ["--storage-driver", args.storage_driver, "--enter"]
    if os.geteuid() == 0:
        return subprocess.run([*again, buildah.told("mount", container)], check=False).returncode
    # Only inside buildah's own namespace is this user root, and only there is the mount to be seen.
    script = f'exec "$@" "$({" ".join(["buildah", *buildah._command[1:]])} mount {container})"'
    return subprocess.run(
        [*buildah._command, "unshare", "sh", "-c", script, "sh", *again], check=False
    ).returncode


def config_of(buildah: Buildah) -> dict[str, Any]:
    """What the image says of how it is run."""
    config: dict[str, Any] = json.loads(buildah.told("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    return config


def enter(tree: Path, config: dict[str, Any]) -> int:
    """Run the check in the image as a hardened container would; its exit code."""
    du = subprocess.run(["du", "-sx", "--block-size=1M", tree], check=True, capture_output=True, text=True)
    print(f"the image takes {int(du.stdout.split()[0]) / 1024:.2f} GiB unpacked", flush=True)
    (data,) = config["Volumes"]
    user, _, group = config["User"].partition(":")
    *init, program = config["Entrypoint"]
    run = {"program": [program, *config["Cmd"]], "health": config["Healthcheck"]["Test"][1:], "data": data}
    variables = [word for pair in config["Env"] for word in ("--setenv", *pair.split("=", 1))]
    sandbox = [
        *("bwrap", "--die-with-parent", "--as-pid-1", "--clearenv", *variables, "--chdir", "/"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *(
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
            "--cap-add",
            "CAP_SETPCAP",
        ),
        *("--ro-bind", str(tree), "/", "--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", TMP),
        *("--bind", f"{tree}{data}", data, "--ro-bind", str(INSIDE), f"{TMP}/{INSIDE.name}"),
    ]
    no_rights = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    # The image's init is the first process, as in a container, and the check starts its program.
    check = [
        "setpriv",
        "--reuid",
        user,
        "--regid",
        group,
        *no_rights,
        *init,
        "python",
        f"{TMP}/{INSIDE.name}",
    ]
    ran = subprocess.run([*sandbox, *check, json.dumps(run)], check=False, stdin=subprocess.DEVNULL)
    return ran.returncode


def need(*programs: str) -> None:
    """End with a sentence where a program is missing."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        print(
            f"This needs {' and '.join(missing)}. "
            "In Debian: apt-get install buildah bubblewrap mmdebstrap uidmap.",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
