"""A Dockerfile's steps, taken in plain folders by chroot: what a container engine would make an image of.

Of the language it knows what ours is written in, and refuses the rest. It needs root.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_SECONDS = 120

Instruction = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A folder, and how a program in it is to be run."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def chroot(self, *command: str, **more: str) -> list[str]:
        """Return the command that runs *command* in the folder, as the image's user, with *more* environment."""
        environment = [f"{name}={value}" for name, value in {**self.environment, **more}.items()]
        inside = ["/usr/bin/env", "-i", "-C", self.folder, *environment, *command]
        return ["chroot", f"--userspec={self.user}", str(self.root), *inside]


def read(text: str) -> list[list[Instruction]]:
    """Return the stages of a Dockerfile, each as its instructions, the FROM first."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    stages: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, value = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, value.strip()))
    return stages


def context(repository: Path, folder: Path) -> Path:
    """Make *folder* the context of a build: the files that git does not ignore and `.dockerignore` lets by."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    patterns = (repository / ".dockerignore").read_text().splitlines()
    for name in files.splitlines():
        if not ignored(name, patterns) and (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    return folder


def ignored(name: str, patterns: list[str]) -> bool:
    """Whether the last pattern that matches the file *name*, or a folder that it is in, excludes it."""
    answer = False
    places = [str(place) for place in (Path(name), *Path(name).parents) if place != Path()]
    for pattern in patterns:
        bare = pattern.removeprefix("!").removeprefix("**/")
        deep = "**/" in pattern
        if bare and not bare.startswith("#") and any(fnmatch(Path(p).name if deep else p, bare) for p in places):
            answer = not pattern.startswith("!")
    return answer


def describe(text: str) -> Image:
    """Return what the last stage of the Dockerfile *text* says of its image, without taking its steps."""
    image = Image(root=Path("/nonexistent"))
    for step in read(text)[-1][1:]:
        image = _described(step, image)
    return image


def build(text: str, context: Path, base: Path, folder: Path) -> Image:
    """Take the steps of the Dockerfile *text* in copies of *base* below *folder*, and return the last stage."""
    stages: dict[str, Image] = {}
    for number, (start, *steps) in enumerate(read(text)):
        words = start[1].split()
        name = words[2] if len(words) == 3 else str(number)
        image = Image(root=folder / name)
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(image.root)], check=True)  # noqa: S607
        for step in steps:
            match step:
                case "RUN", command:
                    _run(image, command)
                case "COPY", files:
                    _copy(files.split(), image, context, stages)
                case "WORKDIR", place:
                    (image.root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
            image = _described(step, image)
        stages[name] = image
    return image


def _described(step: Instruction, image: Image) -> Image:
    """Return *image* with what an instruction says of it; raise `NotImplementedError` for one that is not known."""
    name, words = step
    if name not in SAID:
        raise NotImplementedError(f"this Dockerfile has an instruction that the tests do not know: {name}")
    return replace(image, **SAID[name](words, image))


def _run(image: Image, command: str) -> None:
    """Run a step with the network of this machine, however it is set up, as an engine does."""
    borrowed = dict(_network(image.root))
    argv = image.chroot("/bin/sh", "-c", command, **borrowed)
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    assert ended.returncode == 0, f"RUN {command}\nended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"


def _network(root: Path) -> Iterator[tuple[str, str]]:
    """Copy this machine's files for the network into *root* and yield its variables: they are no part of the image."""
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf"):
        if Path(name).exists():
            shutil.copy(name, root / name.lstrip("/"))
    for name, value in os.environ.items():
        if re.match(r"(PIP|UV|SSL)_|.*_PROXY$", name, re.IGNORECASE):
            yield name, value
            if Path(value).is_file():
                (root / value.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(value, root / value.lstrip("/"))


def _copy(words: list[str], image: Image, context: Path, stages: Mapping[str, Image]) -> None:
    """Copy files to a folder that ends in a slash or is the current one; copy a folder's contents."""
    origin = context
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    place = image.root / os.path.normpath(f"{image.folder}/{target}" if target[0] != "/" else target).lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(path, place)


def _pairs(words: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return the NAME=VALUE pairs in *words*, with `$NAME` replaced by what is *known*."""
    pairs = (word.partition("=") for word in shlex.split(words))
    return {name: re.sub(r"\$(\w+)", lambda found: known[found[1]], value) for name, _, value in pairs}


SAID: Mapping[str, Callable[[str, Image], dict[str, Any]]] = {
    "RUN": lambda *_: {},
    "COPY": lambda *_: {},
    "WORKDIR": lambda words, _: {"folder": words},
    "ENV": lambda words, image: {"environment": {**image.environment, **_pairs(words, image.environment)}},
    "LABEL": lambda words, image: {"labels": {**image.labels, **_pairs(words, {})}},
    "USER": lambda words, _: {"user": words},
    "VOLUME": lambda words, image: {"volumes": (*image.volumes, words)},
    "EXPOSE": lambda words, _: {"ports": tuple(words.split())},
    "HEALTHCHECK": lambda words, _: {"health": tuple(json.loads(words.partition("CMD ")[2]))},
    "STOPSIGNAL": lambda words, _: {"stop_signal": words},
    "ENTRYPOINT": lambda words, _: {"entrypoint": tuple(json.loads(words))},
    "CMD": lambda words, _: {"command": tuple(json.loads(words))},
}
"""What each instruction says of the image. Those with an exec form have to be in it: it is JSON."""
