"""Keystone, Swift and Glance, the real ones, for as long as standard input stays open.

usage: services.py CACHE

Starts them on free ports of 127.0.0.1 with everything they write in a new directory, prints one
line of JSON (addresses, users, passwords, which open nothing else), and ends them when standard
input closes: a test that dies takes its services along. Two Swift proxies share the storage: one
believes Keystone, one is its own judge (tempauth). CACHE keeps databases that took seconds to
make. Needs memcached and the packages of requirements.txt in the python that runs this.
"""
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import configs
import seed

HOST = '127.0.0.1'
HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.path.dirname(sys.executable)
PATIENCE = 120  # seconds until a service must answer; the machine may be busy


def free_ports(count):
    """Ports that are free now, outside of the range from which the kernel serves connect()."""
    found = []
    while len(found) < count:
        port = random.randint(20000, 30000)
        with socket.socket() as s:
            try:
                s.bind((HOST, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class Services:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix='flowrun-services-')
        self.running = {}
        os.mkdir(os.path.join(self.directory, 'log'))

    def start(self, name, *command, **env):
        with open(self.log(name), 'wb') as log:
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=dict(os.environ, **env))

    def log(self, name):
        return os.path.join(self.directory, 'log', name + '.log')

    def check(self):
        """What answers must be what was started, not somebody else's."""
        for name, process in self.running.items():
            if process.poll() is not None:
                with open(self.log(name), errors='replace') as log:
                    sys.exit('%s ended with %s:\n%s'
                             % (name, process.returncode, log.read()[-4000:]))

    def wait(self, port, path=None):
        """Until the port accepts connections, or the path on it is answered with 200."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.check()
            try:
                if path is None:
                    socket.create_connection((HOST, port), timeout=2).close()
                    return
                url = 'http://%s:%d%s' % (HOST, port, path)
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (OSError, urllib.error.URLError):
                pass
            time.sleep(0.05)
        sys.exit('no answer from port %d in %d s' % (port, PATIENCE))

    def stop(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            for process in self.running.values():
                try:
                    os.killpg(process.pid, sig)
                except ProcessLookupError:
                    pass
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and any(
                    process.poll() is None for process in self.running.values()):
                time.sleep(0.05)
        shutil.rmtree(self.directory, ignore_errors=True)


def cached(cache):
    """A directory with seeded databases, made once for this version of the scripts."""
    key = hashlib.sha256()
    for name in ('requirements.txt', 'configs.py', 'seed.py'):
        with open(os.path.join(HERE, name), 'rb') as file:
            key.update(file.read())
    made = os.path.join(cache, key.hexdigest()[:16])
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(made):
            part = made + '.part'
            shutil.rmtree(part, ignore_errors=True)
            seed.make(part)
            os.rename(part, made)
    return made


def set_addresses(database, places):
    """Replaces the names in the catalogue, under which it was seeded, by this run's addresses."""
    with sqlite3.connect(database) as db:
        for name, address in places.items():
            db.execute('UPDATE endpoint SET url = replace(url, ?, ?)', (name, address))


def start(services, cache):
    directory = services.directory
    ports = dict(zip(configs.PORTS, free_ports(len(configs.PORTS))))
    shutil.copytree(cached(cache), directory, dirs_exist_ok=True)
    configs.write(directory, ports)
    at = {name: 'http://%s:%d' % (HOST, port) for name, port in ports.items()}
    set_addresses(os.path.join(directory, 'keystone.db'), {
        seed.SWIFT: at['swift'], seed.GLANCE: at['glance'], seed.KEYSTONE: at['keystone']})
    services.start('memcached', 'memcached', '-l', HOST, '-p', str(ports['memcached']),
                   '-U', '0', '-m', '16', '-t', '1', *(['-u', 'root'] if os.getuid() == 0 else []))
    swift = os.path.join(directory, 'swift')
    configs.write_rings(swift, ports)
    for name, conf in (
            ('swift-account-server', 'account'), ('swift-container-server', 'container'),
            ('swift-object-server', 'object'), ('swift-object-expirer', 'object'),
            # Without it the expirer never learns what there is to expire.
            ('swift-container-updater', 'container'),
            ('swift-proxy-server', 'proxy-keystone'), ('swift-proxy-server', 'proxy-tempauth')):
        services.start('%s.%s' % (name, conf), sys.executable, os.path.join(HERE, 'swiftd.py'),
                       swift, name, os.path.join(swift, conf + '.conf'), '-v')
    for name, variable in (('keystone', 'OS_KEYSTONE_CONFIG_DIR'),
                           ('glance', 'OS_GLANCE_CONFIG_DIR')):
        module = {'keystone': 'keystone.wsgi.api', 'glance': 'glance.wsgi.api'}[name]
        services.start(name, os.path.join(BIN, 'gunicorn'), '-b', '%s:%d' % (HOST, ports[name]),
                       '-k', 'gthread', '--threads', '8', '--worker-tmp-dir', directory,
                       '--timeout', '600', '--no-control-socket', '--pythonpath', HERE,
                       "wsgi:load('%s')" % module,
                       **{variable: os.path.join(directory, name)})
    for name in ('account', 'container', 'object'):
        services.wait(ports[name])
    services.wait(ports['swift'], '/healthcheck')
    services.wait(ports['tempauth'], '/healthcheck')
    services.wait(ports['keystone'], '/v3')
    services.wait(ports['glance'], '/healthcheck')
    with open(os.path.join(directory, 'seeded.json')) as file:
        seeded = json.load(file)
    return dict(seeded, **at, directory=directory, pid=os.getpid())


def main():
    services = Services()
    # Whoever asks this to end gets the same orderly end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print(json.dumps(start(services, os.path.abspath(sys.argv[1]))), flush=True)
        sys.stdin.read()
    finally:
        services.stop()


if __name__ == '__main__':
    main()
