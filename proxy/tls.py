"""TLS contexts from the configuration, and words for what goes wrong with a connection.

Contexts are built from ``ssl.SSLContext`` and not with ``create_default_context``: that one also sets
``VERIFY_X509_STRICT`` from Python 3.13 on, and private authorities of many a site (no authority key identifier) would
be refused by one Python and accepted by the other.
"""

import errno
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Literal

from proxy.config import ClientTls, ListenTls
from proxy.errors import ConfigError, Fault

Reason = Literal["connect", "tls", "timeout", "reset", "protocol"]


def client_context(tls: ClientTls, where: str = "tls") -> ssl.SSLContext:
    """For an upstream or a token endpoint: TLS 1.2 or later, HTTP/1.1 only, the peer's certificate checked.

    The caller passes ``server_hostname=tls.server_name or host``. where: dotted path of the section, for the faults.
    Raises ConfigError when a file cannot be used.
    """
    context = _new(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.ca_file is not None:
        _trust(context, tls.ca_file, f"{where}.ca_file")
    else:
        context.load_default_certs()
    if tls.cert_file is not None:
        _show(context, tls.cert_file, tls.key_file, where)
    return context


def server_context(tls: ListenTls, where: str = "listen.tls") -> ssl.SSLContext:
    """For the gateway's own port: TLS 1.2 or later, HTTP/1.1 only.

    With ``client_ca_file`` a certificate is asked for, not demanded: who shows none gets an answer in words over HTTP
    (as nginx does it), who shows one of an unknown authority fails the handshake. Raises ConfigError.
    """
    context = _new(ssl.PROTOCOL_TLS_SERVER)
    _show(context, tls.cert_file, tls.key_file, where)
    if tls.client_ca_file is not None:
        _trust(context, tls.client_ca_file, f"{where}.client_ca_file")
        context.verify_mode = ssl.CERT_OPTIONAL
        # A resumed session is not verified again: it would outlive the authority that vouched for it.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def reload(context: ssl.SSLContext, tls: ListenTls, where: str = "listen.tls") -> None:
    """Have a listener's ``context`` use the files as they are now, for every handshake from here on.

    Raises ConfigError and changes nothing when they cannot be used. A new context takes over at the start of each
    handshake: loading into the old one would keep authorities that are gone, and would leave a new certificate with
    the old key when the pair does not match. Adding or removing ``client_ca_file`` itself needs a new listener.
    """
    fresh = server_context(tls, where)

    def take_over(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = fresh

    context.sni_callback = take_over


def _new(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(path: Path, label: str, where: str) -> None:
    """OpenSSL names neither the file nor what it expected in it, so the likely faults are found before it is asked."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise _fault(where, f"{path} does not exist") from None
    except PermissionError:
        raise _fault(where, f"{path} may not be read by this user") from None
    except OSError as exc:
        raise _fault(where, f"{path} cannot be read: {exc.strerror}") from None
    if re.search(rb"-----BEGIN [A-Z0-9 ]*" + label.encode() + rb"-----", text) is None:
        raise _fault(where, f"{path} holds no {label.lower()} in PEM form (-----BEGIN {label}-----)")
    if label == "PRIVATE KEY" and (b"BEGIN ENCRYPTED" in text or b"Proc-Type: 4,ENCRYPTED" in text):
        words = "is protected by a passphrase, which nobody is there to type; store it without one, readable only by us"
        raise _fault(where, f"{path} {words}")


def _trust(context: ssl.SSLContext, path: Path, where: str) -> None:
    _read(path, "CERTIFICATE", where)
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError):
        raise _fault(where, f"{path} holds a certificate that cannot be read") from None


def _show(context: ssl.SSLContext, cert: Path, key: Path | None, where: str) -> None:
    _read(cert, "CERTIFICATE", f"{where}.cert_file")
    _read(key or cert, "PRIVATE KEY", f"{where}.key_file")
    try:
        # Never ask on the terminal, whatever the key turns out to be.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as exc:
        if exc.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise _fault(f"{where}.key_file", f"{key or cert} is not the key of the certificate in {cert}") from None
        if exc.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
            raise _fault(f"{where}.cert_file", f"{cert} is too weak: use RSA of 2048 bits or EC, and SHA-256") from None
        raise _fault(f"{where}.cert_file", f"{cert} and {key or cert} cannot be read as certificate and key") from None
    except OSError as exc:
        raise _fault(f"{where}.cert_file", f"{cert} cannot be read: {exc.strerror}") from None


def _fault(where: str, words: str) -> ConfigError:
    return ConfigError([Fault(where, words)])


# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_VERIFY: dict[int, str] = {
    2: "an authority in the certificate's chain is missing; the peer must send the whole chain, or put it into ca_file",
    9: "its certificate is not valid yet; compare the clocks of both machines",
    10: "its certificate has expired; its owner must renew it (or this machine's clock is wrong)",
    18: "its certificate is self-signed; put it into ca_file if it is the right one",
    19: "its chain ends at an authority that is not trusted here; put that authority into ca_file",
    20: "its certificate is from an authority that is not trusted here; put that authority into ca_file",
    21: "its certificate is from an authority that is not trusted here; put that authority into ca_file",
    23: "its certificate was revoked",
    26: "its certificate is not meant for this use (extended key usage)",
    66: "its certificate's key is too weak for this machine's OpenSSL policy",
    67: "its authority's key is too weak for this machine's OpenSSL policy",
    68: "its chain is signed with a digest too weak for this machine's OpenSSL policy",
}
_WRONG_NAME = (62, 64)

_NEEDS_CERTIFICATE = "the peer demands a client certificate; configure tls.cert_file and tls.key_file"
_NO_COMMON = "both sides have no TLS version or cipher in common; the gateway speaks TLS 1.2 and 1.3"
_ALERTS: dict[str, str] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NEEDS_CERTIFICATE,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _NEEDS_CERTIFICATE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer refused the handshake: it demands a client certificate"
    " (tls.cert_file, tls.key_file), or has no cipher in common with us",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the authority of the certificate it was shown",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer refused the certificate it was shown, or demands a client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate that the peer was shown has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the certificate that the peer was shown was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer refused the certificate it was shown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the peer refused the kind of certificate it was shown",
    "TLSV1_ALERT_ACCESS_DENIED": "the peer knows the certificate it was shown, and denies access",
    "TLSV1_UNRECOGNIZED_NAME": "the peer serves no such name; set tls.server_name to the one it expects",
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_COMMON,
    "UNSUPPORTED_PROTOCOL": _NO_COMMON,
    "NO_PROTOCOLS_AVAILABLE": _NO_COMMON,
    "NO_SHARED_CIPHER": _NO_COMMON,
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS on this port; is the URL meant to begin with http://?",
    "RECORD_LAYER_FAILURE": "the peer does not speak TLS on this port; is the URL meant to begin with http://?",
    "HTTP_REQUEST": "the peer does not speak TLS on this port; is the URL meant to begin with http://?",
    "DH_KEY_TOO_SMALL": "the peer offers a key exchange too weak for this machine's OpenSSL policy",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "the peer's TLS is too old to be safe (no RFC 5746)",
}

_PROXY_ERRORS: dict[Reason, str] = {
    "connect": "connection_refused",
    "tls": "tls_protocol_error",
    "timeout": "connection_timeout",
    "reset": "connection_terminated",
    "protocol": "destination_unavailable",
}
_NO_NAME, _NO_NAME_SERVER = -1, -2  # beside the system's numbers, which are positive
_DEPTH = 16
_PRECISE = (ssl.SSLError, socket.gaierror, ConnectionError, TimeoutError, EOFError)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
_ERRNOS: dict[int, str] = {
    errno.ECONNREFUSED: "the connection was refused: nothing listens on that port, or a firewall rejects it",
    errno.ETIMEDOUT: "no answer came in time; the host may be down, or a firewall may drop the packets",
    _NO_NAME: "its name is not known to the name server; check the spelling",
    _NO_NAME_SERVER: "its name could not be looked up: the name server does not answer",
    errno.EADDRNOTAVAIL: "no local port or address is left for another connection",
    errno.EMFILE: "the process has no file descriptor left; raise its limit (ulimit -n)",
    errno.ENFILE: "the machine has no file descriptor left",
    errno.EACCES: "this machine does not permit the connection",
    errno.EPERM: "this machine does not permit the connection (a local firewall rule)",
    **dict.fromkeys(_UNREACHABLE, "the host cannot be reached: no route to it from here"),
}


def reason(exc: BaseException) -> Reason:
    """The metric's label for a failure to connect, send or receive."""
    match _root(exc):
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "reset"
        case ssl.SSLError():
            return "tls"
        case TimeoutError() | ConnectionAbortedError(errno=None):
            return "timeout"
        case ConnectionRefusedError():
            return "connect"
        case ConnectionError() | EOFError():
            return "reset"
        case OSError():
            return "connect"
        case _:
            return "protocol"


def proxy_error(exc: BaseException) -> str:
    """RFC 9209 2.3 error type for a failure to connect."""
    error = _root(exc)
    if isinstance(error, socket.gaierror):
        return "dns_error"
    label, numbers = reason(error), set(_numbers(error)) if isinstance(error, OSError) else set()
    if label == "connect" and errno.ECONNREFUSED not in numbers:
        return "destination_ip_unroutable" if numbers and numbers <= {*_UNREACHABLE} else "destination_unavailable"
    return _PROXY_ERRORS[label]


def explain(exc: BaseException) -> str:
    """What happened on a connection and what can be done, for a person. Never bytes that the peer sent."""
    match error := _root(exc):
        case ssl.SSLCertVerificationError():
            return _explain_certificate(error)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "the peer closed the connection without ending TLS"
        case ssl.SSLError():
            name = getattr(error, "reason", None) or "NO_REASON_GIVEN"  # unset when a library made the error
            return _ALERTS.get(name, f"TLS failed ({name.lower().replace('_', ' ')})")
        case socket.gaierror():
            return _ERRNOS[_NO_NAME_SERVER if error.errno == socket.EAI_AGAIN else _NO_NAME]
        case TimeoutError():
            return _ERRNOS[errno.ETIMEDOUT]
        case ConnectionAbortedError(errno=None):  # asyncio's own word for a TLS handshake beyond its time
            return "the TLS handshake was not finished in time"
        case ConnectionRefusedError():
            return _ERRNOS[errno.ECONNREFUSED]
        case ConnectionError() | EOFError():
            return "the peer broke the connection off"
        case OSError():
            words = (_ERRNOS.get(number) or os.strerror(number) for number in _numbers(error))
            return "; ".join(dict.fromkeys(words)) or "the connection failed"
        case _:
            return "the exchange failed"


def _explain_certificate(error: ssl.SSLCertVerificationError) -> str:
    code = getattr(error, "verify_code", 0)
    if code in _WRONG_NAME:
        # The quoted name is the one we asked for, from the configuration.
        expected = re.search(r"'([^']+)'", error.verify_message)
        name = expected[1] if expected else "the expected name"
        return f"its certificate is not for {name}; if it is the right machine, set tls.server_name to a name it has"
    return _VERIFY.get(code, f"its certificate was refused (OpenSSL verify error {code})")


def _root(exc: BaseException) -> BaseException:
    """The innermost error of ssl or the system: client libraries wrap it in errors of their own that say less."""
    root, found, depth = exc, exc.__cause__, 0
    while found is not None and depth < _DEPTH:
        if isinstance(found, _PRECISE) or (isinstance(found, OSError) and _numbers(found)):
            root = found
        found, depth = found.__cause__, depth + 1
    if isinstance(root, OSError) and not isinstance(root, _PRECISE):
        numbers = set(_numbers(root))
        # OSError's constructor picks the subclass: what asyncio joined in one error is a ConnectionRefusedError again.
        return OSError(*numbers, "") if len(numbers) == 1 else root
    return root


def _numbers(error: OSError) -> list[int]:
    """Its errno; or those inside asyncio's "Multiple exceptions: [Errno 111] ..., [Errno 101] ..." (a name with several
    addresses), which carries them in its text only."""
    if error.errno is not None:
        return [error.errno]
    return [int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))]
