"""TLS on the server's side, with certificates that may change while it runs."""

from __future__ import annotations

import grpc

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.permissions import warn_if_open
from pathwatch.server.access.reloading import Reloaded
from pathwatch.server.config import TlsFiles, server_context


def server_credentials(files: TlsFiles, counts: AccessCounts) -> grpc.ServerCredentials:
    """Credentials from PEM files; each new connection gets what the files hold then, open ones live on.

    Raises OSError or ValueError where the files cannot be used now; later, that is logged and counted.
    """
    certificates = Reloaded("the TLS certificate", files.paths, lambda: _read(files), counts.reader_of("tls"))
    # Asked before every handshake, in one of gRPC's threads.
    return grpc.dynamic_ssl_server_credentials(
        certificates.current(),
        certificates.current,
        require_client_authentication=files.client_ca is not None,
    )


def _read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    server_context(files)  # gRPC would take what does not fit together, and log that in words of its own
    warn_if_open(files.key)
    return grpc.ssl_server_certificate_configuration(
        [(files.key.read_bytes(), files.cert.read_bytes())],
        root_certificates=files.client_ca.read_bytes() if files.client_ca else None,
    )
