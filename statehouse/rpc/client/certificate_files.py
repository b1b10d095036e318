"""A client's files for TLS, taken into a context. What is wrong with one of them is said of that one.

OpenSSL says 'PEM lib' of each mistake, and waits for ever on a pipe. So each file is read here first.
"""

import os
import re
import ssl
from typing import Final, NoReturn

from statehouse.rpc.given import FilePath, read_file, shown

__all__ = ["show_certificate", "trust_authorities"]

PEM_FILE_BYTES: Final = 16 * 1024 * 1024
"""The largest file; all the authorities of the web take a quarter of a MiB."""

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")
_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")


def trust_authorities(context: ssl.SSLContext, ca_file: FilePath) -> None:
    """Trust the certificates of a file and no others. ValueError when it cannot be used."""
    _require(_CERTIFICATE, "certificate", "ca_file", ca_file)
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"ca_file {shown(ca_file)} cannot be used: {_reason(error)}") from None


def show_certificate(context: ssl.SSLContext, cert_file: FilePath, key_file: FilePath | None) -> None:
    """Show a certificate to servers that ask for one; without `key_file` its key is in `cert_file` too."""
    _require(_CERTIFICATE, "certificate", "cert_file", cert_file)
    if key_file is None:
        _require(_KEY, "private key", "cert_file", cert_file, "; key_file names the file that has it")
        files = key = f"cert_file {shown(cert_file)}"
    else:
        _require(_KEY, "private key", "key_file", key_file)
        key = f"key_file {shown(key_file)}"
        files = f"cert_file {shown(cert_file)} with {key}"

    def no_password() -> NoReturn:  # without this OpenSSL would ask the terminal
        raise ValueError(f"the private key in {key} is encrypted, which is not supported")

    try:
        context.load_cert_chain(cert_file, key_file, no_password)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason in _MISMATCHES:
            raise ValueError(
                f"the private key in {key} does not belong to the first certificate in cert_file {shown(cert_file)}"
            ) from None
        raise ValueError(f"{files} cannot be used: {_reason(error)}") from None


def _require(form: re.Pattern[bytes], what: str, name: str, path: FilePath, hint: str = "") -> None:
    try:
        content = read_file(path, PEM_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{name} {shown(path)} cannot be used: {_reason(error)}") from None
    if len(content) > PEM_FILE_BYTES:
        raise ValueError(f"{name} {shown(path)} cannot be used: it is larger than {PEM_FILE_BYTES} bytes")
    if not form.search(content):
        raise ValueError(f"{name} {shown(path)} cannot be used: it has no {what} in PEM form{hint}")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"damaged, or not in PEM form ({(error.reason or 'TLS error').lower().replace('_', ' ')})"
    return error.strerror or (os.strerror(error.errno) if error.errno else "it cannot be read")
