"""sushy-emulator, a Redfish service without a maker's extensions, until standard input closes.

usage: sushy.py DIRECTORY

DIRECTORY holds cert.pem and key.pem, and takes everything that this writes. Prints one line of
JSON: address, user and password of Basic authentication, UUID of the one system that is there.
It has no sessions, loads the whole of an image before it answers an insert, and shows each
power change some seconds after it was asked for.
"""
import json
import os
import random
import ssl
import sys
import tempfile
import threading

import bcrypt
from werkzeug.serving import make_server

USER, PASSWORD = 'admin', 'sushy-sushy'
SYSTEM = '27946b59-9e44-4fa7-8e91-f3527a1ef094'


def main():
    directory = os.path.abspath(sys.argv[1])
    at = lambda name: os.path.join(directory, name)
    with open(at('htpasswd'), 'w') as file:
        digest = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4))
        file.write('%s:%s\n' % (USER, digest.decode()))
    # Images, and databases if one is opened without a place of its own.
    tempfile.tempdir = directory
    # It rolls dice for how long power takes, 1 to 11 s; with this seed the short end comes first.
    random.seed(2689)
    from sushy_tools.emulator.main import app
    app.configure(extra_config={
        'SUSHY_EMULATOR_AUTH_FILE': at('htpasswd'),
        'SUSHY_EMULATOR_FAKE_DRIVER': True,
        'SUSHY_EMULATOR_STATE_DIR': at('state'),
        'SUSHY_EMULATOR_FAKE_SYSTEMS': [
            {'uuid': SYSTEM, 'name': 'node-1', 'power_state': 'Off', 'nics': []}],
    })
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(at('cert.pem'), at('key.pem'))
    server = make_server('127.0.0.1', 0, app, threaded=True, ssl_context=tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({
        'url': 'https://127.0.0.1:%d' % server.server_port,
        'user': USER, 'password': PASSWORD, 'system': SYSTEM}), flush=True)
    sys.stdin.read()


if __name__ == '__main__':
    main()
