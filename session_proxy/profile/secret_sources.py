"""Where secrets come from: ``env:NAME``, ``file:PATH``, ``command:LINE``, or the text itself."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import attrs

from session_proxy.profile.secret import Secret

# Certificates and key sets fit; a mistyped path to a disk image does not end up in memory.
MAX_SECRET_FILE = 1 << 20

# A password manager may ask a person to touch a key; nobody waits longer for a proxy to start.
COMMAND_PATIENCE = 60.0


class InvalidValueError(ValueError):
    """A value in a file cannot be used; *fix* says what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        self.fix = fix
        super().__init__(message)


def expand_path(text: str, base: Path, environ: Mapping[str, str]) -> Path:
    """Return the path that *text* means in a file of the folder *base*: ``~`` is the home folder.

    Raises:
      InvalidValueError: it is empty, or names the home of somebody unknown.

    """
    if not text or "\0" in text:
        raise InvalidValueError("is not a path", "write the path of a file")
    home = environ.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        return Path(home) / text[2:]
    try:
        return base / Path(text).expanduser()
    except RuntimeError as exc:
        fix = "write the path out"
        raise InvalidValueError(f"{text!r} names the home folder of an unknown user", fix) from exc


def reread(secret: Secret) -> str:
    """Return what *secret* is by now: its file is read again, or its command runs again; others do not change.

    That may take up to `COMMAND_PATIENCE` seconds: call it in a thread where other tasks must go on.

    Raises:
      InvalidValueError: there is none any more. The message never holds a secret.

    """
    return secret.reveal() if secret.again is None else secret.again()


@attrs.frozen
class SecretSources:
    """Reads secrets for a file in the folder *base*, with the variables in *environ*."""

    base: Path
    environ: Mapping[str, str] = attrs.field(repr=False, converter=dict[str, str])

    def read(self, text: str) -> Secret:
        """Return the secret that *text* names; text without a known prefix is the secret.

        Runs a command where *text* says so, which may take up to `COMMAND_PATIENCE` seconds.

        Raises:
          InvalidValueError: there is none. The message never holds a secret.

        """
        source, colon, reference = text.partition(":")
        match source if colon else "":
            case "env":
                return Secret("env", reference, self._variable(reference))
            case "file":
                return Secret("file", reference, self._file(reference), partial(self._file, reference))
            case "command":
                return Secret(
                    "command", reference, self._command(reference), partial(self._command, reference)
                )
            case _:
                if not text:
                    raise InvalidValueError(
                        "is empty", 'write "env:NAME", "file:PATH", "command:LINE" or the secret itself'
                    )
                return Secret("literal", "", text)

    def _variable(self, name: str) -> str:
        if not name:
            raise InvalidValueError('"env:" names no variable', 'write "env:NAME"')
        value = self.environ.get(name)
        if value is None:
            raise InvalidValueError(
                f"the environment variable {name} is not set", f'set {name}, or write "file:PATH"'
            )
        if not value:
            raise InvalidValueError(f"the environment variable {name} is empty", f"set {name} to the secret")
        return value

    def _file(self, text: str) -> str:
        if not text:
            raise InvalidValueError('"file:" names no file', 'write "file:PATH"')
        path = expand_path(text, self.base, self.environ)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SECRET_FILE + 1)
        except OSError as exc:
            fix = (
                "make it readable for you"
                if isinstance(exc, PermissionError)
                else "name the file that holds it"
            )
            raise InvalidValueError(f"cannot read {path}: {(exc.strerror or str(exc)).lower()}", fix) from exc
        if len(content) > MAX_SECRET_FILE:
            raise InvalidValueError(
                f"{path} is larger than {MAX_SECRET_FILE} bytes", "name the secret's own file"
            )
        try:
            secret = content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            # Not chained: the exception carries the bytes.
            raise InvalidValueError(f"{path} is not text", "store the secret as UTF-8 text") from None
        if not secret:
            raise InvalidValueError(f"{path} is empty", "name the file that holds it")
        return secret

    def _command(self, command: str) -> str:
        if not command.strip():
            raise InvalidValueError('"command:" names no command', 'write "command:LINE", for /bin/sh')
        try:
            # The person who writes the profile chooses the command; its stderr is for that person too.
            done = subprocess.run(  # noqa: S603
                ["/bin/sh", "-c", command],
                cwd=self.base,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=COMMAND_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InvalidValueError(
                f"the command {command!r} took longer than {COMMAND_PATIENCE:g} s",
                "use one that answers at once",
            ) from None
        except OSError as exc:
            raise InvalidValueError(f"cannot run {command!r}: {exc.strerror}", "check the command") from exc
        if done.returncode != 0:
            raise InvalidValueError(
                f"the command {command!r} failed with status {done.returncode}",
                "run it in a shell to see why",
            )
        first = done.stdout.decode("utf-8", "replace").partition("\n")[0].rstrip("\r")
        if not first:
            raise InvalidValueError(
                f"the command {command!r} printed nothing", "its first line has to be the secret"
            )
        return first
