"""Databases of Keystone and Glance with users, roles and a catalogue in them.

Keystone is asked through its own application, in this process: no port, and one import.
"""
import grp
import json
import os
import pwd
import sys

import configs

# Stand in the catalogue for addresses that only a running site has.
SWIFT = 'http://swift.invalid'
GLANCE = 'http://glance.invalid'
KEYSTONE = 'http://keystone.invalid'
ADMIN_PASSWORD = 'admin-password'
USER_PASSWORD = 'flowrun-password'


def make(directory):
    """Fills a new directory. Each part is a process of its own: they keep global state."""
    os.makedirs(directory)
    # A busy machine may need longer than the life of a test's token.
    configs.write_keystone(directory, token_life=3600)
    configs.write_glance(directory, KEYSTONE + '/v3')
    in_child(make_keystone, directory)
    in_child(make_glance, directory)


def in_child(work, directory):
    pid = os.fork()
    if pid == 0:
        try:
            # Their libraries have much to say, and standard output is for the caller.
            log = os.open(directory + '.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            work(directory)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit('%s failed; see %s.log' % (work.__name__, directory))


def make_glance(directory):
    from glance.cmd import manage
    conf = os.path.join(directory, 'glance', 'glance-api.conf')
    sys.argv = ['glance-manage', '--config-file', conf, 'db_sync']
    manage.main()


def make_keystone(directory):
    from keystone.cmd import manage
    conf = os.path.join(directory, 'keystone', 'keystone.conf')
    me, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    for command in (['db_sync'],
                    ['fernet_setup', '--keystone-user', me, '--keystone-group', group],
                    ['bootstrap', '--bootstrap-password', ADMIN_PASSWORD,
                     '--bootstrap-region-id', 'RegionOne',
                     '--bootstrap-public-url', KEYSTONE + '/v3',
                     '--bootstrap-internal-url', KEYSTONE + '/v3']):
        def run(_directory, command=command):
            sys.argv = ['keystone-manage', '--config-file', conf] + command
            manage.main()
        in_child(run, directory)
    seed_keystone(directory)


class Keystone:
    """The application, asked without a server."""

    def __init__(self, directory):
        os.environ['OS_KEYSTONE_CONFIG_DIR'] = os.path.join(directory, 'keystone')
        sys.argv = sys.argv[:1]
        from keystone.wsgi.api import application
        self.application = application
        self.token = None

    def ask(self, method, path, body=None):
        import webob
        request = webob.Request.blank('/v3' + path, method=method)
        if body is not None:
            request.content_type = 'application/json'
            request.body = json.dumps(body).encode()
        if self.token:
            request.headers['X-Auth-Token'] = self.token
        answer = request.get_response(self.application)
        if answer.status_int >= 400:
            sys.exit('%s %s: %s %s' % (method, path, answer.status, answer.text))
        return answer

    def make(self, kind, path=None, **fields):
        body = {kind: fields}
        return self.ask('POST', path or '/%ss' % kind, body).json[kind]['id']

    def log_in(self, user, password, project):
        domain = {'id': 'default'}
        identity = {'methods': ['password'], 'password': {
            'user': {'name': user, 'domain': domain, 'password': password}}}
        scope = {'project': {'name': project, 'domain': domain}}
        self.token = None
        self.token = self.ask('POST', '/auth/tokens', {
            'auth': {'identity': identity, 'scope': scope}}).headers['X-Subject-Token']


def seed_keystone(directory):
    keystone = Keystone(directory)
    keystone.log_in('admin', ADMIN_PASSWORD, 'admin')
    roles = {role['name']: role['id'] for role in keystone.ask('GET', '/roles').json['roles']}
    for name in ('service', 'ResellerAdmin', 'nothing'):
        if name not in roles:
            roles[name] = keystone.make('role', name=name)
    projects = {name: keystone.make('project', name=name, domain_id='default')
                for name in ('service', 'ramdisk')}
    ids = {}
    for name, password, project, granted in (
            ('swift', configs.SERVICE_PASSWORD, 'service', ('admin', 'service')),
            ('glance', configs.SERVICE_PASSWORD, 'service', ('admin', 'service')),
            ('flowrun', USER_PASSWORD, 'service', ('member',)),
            # May log in, and nothing else.
            ('ramdisk', USER_PASSWORD, 'ramdisk', ('nothing',))):
        ids[name] = keystone.make('user', name=name, password=password, domain_id='default')
        for role in granted:
            keystone.ask('PUT', '/projects/%s/users/%s/roles/%s'
                         % (projects[project], ids[name], roles[role]))
    # A second region whose Swift nobody can reach: choosing the wrong one shows.
    keystone.make('region', id='RegionTwo')
    for name, kind, url in (('swift', 'object-store', SWIFT + '/v1/AUTH_$(project_id)s'),
                            ('glance', 'image', GLANCE)):
        service = keystone.make('service', name=name, type=kind)
        for interface in ('public', 'internal'):
            keystone.make('endpoint', service_id=service, region_id='RegionOne',
                          interface=interface, url=url)
    keystone.make('endpoint', service_id=service, region_id='RegionTwo', interface='public',
                  url='http://127.0.0.1:9')
    keystone.log_in('flowrun', USER_PASSWORD, 'service')
    answer = keystone.ask('POST', '/users/%s/application_credentials' % ids['flowrun'],
                          {'application_credential': {'name': 'flowrun-app'}})
    credential = answer.json['application_credential']
    with open(os.path.join(directory, 'seeded.json'), 'w') as file:
        json.dump({
            'user': 'flowrun', 'password': USER_PASSWORD, 'project': 'service',
            'project_id': projects['service'], 'region': 'RegionOne',
            'ramdisk_user': 'ramdisk', 'ramdisk_project': 'ramdisk',
            'application_credential_id': credential['id'],
            'application_credential_secret': credential['secret'],
            'max_file_size': configs.MAX_FILE_SIZE, 'token_life': configs.TOKEN_LIFE,
        }, file)
