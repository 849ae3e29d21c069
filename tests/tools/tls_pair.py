"""Both sides of a TLS connection with Python's ssl module, each with the certificate and key of the arguments.

    tls_pair.py CERTIFICATE KEY [PASSWORD]

The server requires the client's certificate and tells it whose it is, which is printed with the version of TLS, once for each
version. An exception ends it with status 1.
"""

import socket
import ssl
import sys
import threading


def configured(protocol, certificate, key, password):
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate, key, password)
    return context


def serve(context, connection):
    with context.wrap_socket(connection, server_side=True) as stream:
        subject = dict(part[0] for part in stream.getpeercert()["subject"])
        stream.sendall(subject["commonName"].encode())


def main(certificate, key, password=None):
    server = configured(ssl.PROTOCOL_TLS_SERVER, certificate, key, password)
    client = configured(ssl.PROTOCOL_TLS_CLIENT, certificate, key, password)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client.minimum_version = client.maximum_version = version
        here, there = socket.socketpair()
        thread = threading.Thread(target=serve, args=(server, there))
        thread.start()
        with client.wrap_socket(here) as stream:
            print(stream.version(), stream.recv(1000).decode())
        thread.join()


main(*sys.argv[1:])
