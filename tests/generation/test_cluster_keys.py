"""TLS keys: made whole, for their owner alone, and refused otherwise."""

from __future__ import annotations

import datetime
import os
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from qcsurrogate.clusters.tls import Keys, load_keys, make_keys, ready_keys
from qcsurrogate.errors import SpecError, StoreError


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "a" / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_for_their_owner_alone(keys: Keys) -> None:
    folder = keys.key.parent
    assert mode(folder) == mode(folder.parent) == 0o700
    assert [mode(path) for path in (keys.ca, keys.certificate, keys.key)] == [0o600] * 3
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]
    assert load_keys(folder) == ready_keys(folder) == keys


def test_openssl_accepts_them_and_no_others(keys: Keys, tmp_path: Path) -> None:
    def handshake(client_keys: Keys) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        server.verify_mode = ssl.CERT_REQUIRED
        for context, own in ((server, keys), (client, client_keys)):
            context.load_cert_chain(own.certificate, own.key)
            context.load_verify_locations(own.ca)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            client.wrap_bio(to_client, to_server, server_side=False),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue

    handshake(keys)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(make_keys(tmp_path / "other"))


def test_the_authority_cannot_sign_again(keys: Keys) -> None:
    authority = x509.load_pem_x509_certificate(keys.ca.read_bytes())
    certificate = x509.load_pem_x509_certificate(keys.certificate.read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert certificate.public_key() != authority.public_key()  # the authority's private key was never written
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    valid = certificate.not_valid_after_utc - datetime.datetime.now(tz=datetime.UTC)
    assert valid.days == 365 * 5 - 1


def test_security_holds_paths(keys: Keys) -> None:
    security = keys.security()
    assert security.require_encryption
    for role in ("scheduler", "worker", "client"):
        assert security.get_tls_config_for_role(role) == {
            "ca_file": str(keys.ca),
            "ciphers": None,
            "cert": str(keys.certificate),
            "key": str(keys.key),
        }


@pytest.mark.parametrize("name", ["", "key.pem", "cert.pem", "ca.pem"])
def test_what_others_can_read_is_refused(keys: Keys, name: str) -> None:
    path = keys.key.parent / name
    path.chmod(mode(path) | 0o040)
    with pytest.raises(SpecError) as caught:
        load_keys(keys.key.parent)
    shown = "0740" if name == "" else "0640"
    assert f"permissions {shown} for '{path}' are too open" in str(caught.value)
    assert f"chmod {'600' if name else '700'} {path}" in str(caught.value)


def test_what_is_missing_or_no_file_is_refused(keys: Keys, tmp_path: Path) -> None:
    keys.key.unlink()
    with pytest.raises(SpecError, match=r"cannot read '.*key\.pem': .*make one with 'qcsurrogate keys FOLDER'"):
        load_keys(keys.key.parent)
    keys.key.mkdir(mode=0o700)
    with pytest.raises(SpecError, match="is not a regular file; expected a folder of keys"):
        load_keys(keys.key.parent)
    with pytest.raises(SpecError, match="cannot read"):
        load_keys(tmp_path / "nothing")


def test_somebody_elses_keys_are_refused(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(SpecError, match=r"belongs to user \d+; expected your own \(user 4711\)"):
        load_keys(keys.key.parent)


def test_a_certificate_that_is_none_or_too_old(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(2101, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(datetime, "datetime", Later)
        with pytest.raises(SpecError, match=r"was valid until 20\d\d-\d\d-\d\d; remove the folder and make new keys"):
            load_keys(keys.key.parent)
    keys.certificate.write_text("nonsense")
    with pytest.raises(SpecError, match=r"cannot read '.*cert\.pem'.*expected a certificate in PEM form"):
        load_keys(keys.key.parent)


def test_nothing_is_overwritten(keys: Keys) -> None:
    before = keys.key.read_bytes()
    with pytest.raises(SpecError, match="is there already; expected a new folder"):
        make_keys(keys.key.parent)
    assert keys.key.read_bytes() == before


def test_a_path_that_job_scripts_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a path of letters, digits"):
        make_keys(tmp_path / "my;keys")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        ready_keys(tmp_path / "file" / "keys")


def test_many_tasks_agree_on_one_set(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(_authority, [tmp_path / "keys"] * 8))
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def _authority(folder: Path) -> bytes:
    return ready_keys(folder).ca.read_bytes()
