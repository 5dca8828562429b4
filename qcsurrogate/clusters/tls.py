"""Keys with which the processes of a cluster know each other.

Whoever can talk to a Dask scheduler can run programs as its owner.  So between nodes
everything goes through TLS, and both sides show a certificate that one private
authority signed.  The authority's own key is thrown away: the folder holds one pair
for all roles, readable by its owner alone, and whoever lacks it is refused.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shlex
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcsurrogate.errors import SpecError
from qcsurrogate.files.atomic import cannot_write, flush_folder

if TYPE_CHECKING:
    from distributed.security import Security

_NAMES = ("ca.pem", "cert.pem", "key.pem")
_YEARS = 5


@dataclass(frozen=True)
class Keys:
    """Paths of the authority's certificate, our certificate, and its private key."""

    ca: Path
    certificate: Path
    key: Path

    def security(self) -> Security:
        """What Dask's scheduler, workers and clients want; it holds paths, never keys."""
        from distributed.security import Security

        return Security(require_encryption=True, **self.options())

    def options(self) -> dict[str, str]:
        """The same as text, for processes elsewhere."""
        options = {"tls_ca_file": str(self.ca)}
        for role in ("scheduler", "worker", "client"):
            options |= {f"tls_{role}_cert": str(self.certificate), f"tls_{role}_key": str(self.key)}
        return options


def make_keys(folder: str | Path) -> Keys:
    """Make a key folder: ``ca.pem``, ``cert.pem`` and ``key.pem``, for their owner alone.

    The folder appears complete or not at all. Keys are P-256, valid for five years.

    Raises:
        SpecError: if the package ``cryptography`` is missing or something is there already.
        StoreError: if the folder cannot be written.
    """
    path = _plain_path(folder)
    if path.exists():
        raise SpecError(f"'{path}' is there already; expected a new folder: remove it first if its keys are to end")
    if not _made(path):
        raise SpecError(f"'{path}' was made by another process just now; expected a new folder")
    return load_keys(path)


def load_keys(folder: str | Path) -> Keys:
    """The keys of a folder.

    Raises:
        SpecError: if one is missing, expired, or can be read by anybody but its owner.
    """
    path = _plain_path(folder)
    files = [path / name for name in _NAMES]
    for file in (path, *files):
        _check_private(file)
    _check_dates(files[1])
    return Keys(*files)


def ready_keys(folder: str | Path) -> Keys:
    """The keys of a folder, made first if it is not there; many processes may call it at once."""
    path = _plain_path(folder)
    if not path.exists():
        _made(path)
    return load_keys(path)


def _plain_path(folder: str | Path) -> Path:
    path = Path(folder).expanduser().absolute()
    if shlex.quote(plain := str(path).replace(" ", "")) != plain:
        raise SpecError(
            f"the key folder is '{path}'; expected a path of letters, digits, blanks and _ . / @ % + = : , - only, "
            "because job scripts hold it"
        )
    return path


def _check_private(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise SpecError(
            f"cannot read '{path}': {error.strerror or error}; expected a folder of keys: make one with "
            "'qcsurrogate keys FOLDER'"
        ) from error
    is_folder = path.suffix != ".pem"
    if not (stat.S_ISDIR(status.st_mode) if is_folder else stat.S_ISREG(status.st_mode)):
        raise SpecError(f"'{path}' is not a {'folder' if is_folder else 'regular file'}; expected a folder of keys")
    if status.st_uid != os.getuid():
        raise SpecError(f"'{path}' belongs to user {status.st_uid}; expected your own (user {os.getuid()})")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        wanted = "700" if is_folder else "600"
        raise SpecError(
            f"permissions {mode:04o} for '{path}' are too open; expected that nobody else can read the keys: "
            f"chmod {wanted} {path}, and make new ones if they may have been read"
        )


def _check_dates(certificate: Path) -> None:
    from cryptography import x509

    try:
        valid_until = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read '{certificate}': {error}; expected a certificate in PEM form") from error
    if valid_until < datetime.datetime.now(tz=datetime.UTC):
        raise SpecError(
            f"'{certificate}' was valid until {valid_until:%Y-%m-%d}; remove the folder and make new keys with "
            f"'qcsurrogate keys {certificate.parent}'"
        )


def _made(path: Path) -> bool:
    """Make the folder; False if another process was faster."""
    contents = _pems()
    building = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        building.mkdir(mode=0o700)
        for name, data in contents.items():
            descriptor = os.open(building / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        try:
            building.rename(path)  # fails if a folder with files is there
        except OSError:
            if not path.is_dir():
                raise
            return False
        flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return True


def _pems() -> dict[str, bytes]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise SpecError(
            "TLS keys need the package 'cryptography'; expected it installed: pip install 'qcsurrogate[cluster]'"
        ) from error

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.datetime.now(tz=datetime.UTC)
    authority_name = f"qcsurrogate authority {secrets.token_hex(8)}"

    def certificate(subject: str, owner: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(authority_name))
            .public_key(owner.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks of nodes differ
            .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
            .sign(authority_key, hashes.SHA256())
        )

    pem = serialization.Encoding.PEM
    return {
        "ca.pem": certificate(authority_name, authority_key, authority=True).public_bytes(pem),
        "cert.pem": certificate("qcsurrogate", key, authority=False).public_bytes(pem),
        "key.pem": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
