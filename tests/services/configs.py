"""The configuration files of the services: one node, one replica, plain directories."""
import os
import pwd
import sys

HOST = '127.0.0.1'
PORTS = ('memcached', 'account', 'container', 'object', 'swift', 'tempauth', 'keystone', 'glance')
SERVICE_PASSWORD = 'service-password'
# Bytes; small, so that large objects need segments in a test of seconds.
MAX_FILE_SIZE = 48 << 20
# Seconds; short, so that a test can wait for a token's end. On a busy machine a request with its
# two logins (the client's, and the service's own) may take half of it.
TOKEN_LIFE = 60

SWIFT_COMMON = '''
[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = 0
user = {user}
swift_dir = {swift}
devices = {swift}/devices
mount_check = false
fallocate_reserve = 0
'''

STORAGE = SWIFT_COMMON + '''
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
[object-expirer]
interval = 2
internal_client_conf_path = {swift}/internal-client.conf
recon_cache_path = {swift}
dequeue_from_legacy = true
[container-updater]
concurrency = 1
interval = 2
recon_cache_path = {swift}
'''

CACHE = '''
[filter:cache]
use = egg:swift#memcache
memcache_servers = {host}:{memcached}
[filter:catch_errors]
use = egg:swift#catch_errors
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
'''

PROXY = SWIFT_COMMON + CACHE + '''
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl {auth} copy container-quotas account-quotas slo dlo versioned_writes proxy-server
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_reader = reading
# Its tokens are taken away; the others' are not.
user_test_faulty = failing .admin
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
{authtoken}
delay_auth_decision = true
cache = swift.cache
include_service_catalog = false
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
reseller_admin_role = ResellerAdmin
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
'''

INTERNAL_CLIENT = '''
[DEFAULT]
swift_dir = {swift}
user = {user}
[pipeline:main]
pipeline = catch_errors cache proxy-server
''' + CACHE

SWIFT = '''
[swift-hash]
swift_hash_path_prefix = flowrun
swift_hash_path_suffix = test
[storage-policy:0]
name = Policy-0
default = yes
[swift-constraints]
max_file_size = {max_file_size}
'''

AUTHTOKEN = '''
www_authenticate_uri = {keystone_url}
auth_url = {keystone_url}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = {name}
password = {password}
'''

KEYSTONE = '''
[DEFAULT]
use_stderr = true
log_level = WARNING
[database]
connection = sqlite:///{directory}/keystone.db
[token]
provider = fernet
expiration = {token_life}
[fernet_tokens]
key_repository = {directory}/fernet
[fernet_receipts]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
[identity]
password_hash_rounds = 4
'''

GLANCE = '''
[DEFAULT]
use_stderr = true
log_level = WARNING
enabled_backends = file:file, swift:swift
show_image_direct_url = true
hashing_algorithm = sha512
[wsgi]
task_pool_threads = 2
[database]
connection = sqlite:///{directory}/glance.db
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {directory}/images
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[swift]
swift_store_config_file = {directory}/glance/swift-store.conf
default_swift_reference = ref1
swift_store_container = glance
swift_store_create_container_on_put = true
[keystone_authtoken]
{authtoken}
[paste_deploy]
config_file = {prefix}/etc/glance/glance-api-paste.ini
flavor = keystone
[oslo_policy]
enforce_new_defaults = true
[image_format]
disk_formats = aki,ari,iso,qcow2,raw
'''

SWIFT_STORE = '''
[ref1]
user = service:glance
key = {password}
user_domain_id = default
project_domain_id = default
auth_version = 3
auth_address = {keystone_url}
'''


def write_keystone(directory, token_life=TOKEN_LIFE):
    put(directory, 'keystone/keystone.conf', KEYSTONE,
        dict(directory=directory, token_life=token_life))


def write_glance(directory, keystone_url):
    values = dict(directory=directory, password=SERVICE_PASSWORD, keystone_url=keystone_url,
                  prefix=sys.prefix)
    values['authtoken'] = AUTHTOKEN.format(name='glance', **values)
    put(directory, 'glance/glance-api.conf', GLANCE, values)
    put(directory, 'glance/swift-store.conf', SWIFT_STORE, values)


def write(directory, ports):
    """Writes everything for services on these ports."""
    keystone_url = 'http://%s:%d/v3' % (HOST, ports['keystone'])
    write_keystone(directory)
    write_glance(directory, keystone_url)
    values = dict(host=HOST, user=pwd.getpwuid(os.getuid()).pw_name,
                  swift=os.path.join(directory, 'swift'), memcached=ports['memcached'],
                  max_file_size=MAX_FILE_SIZE)
    values['authtoken'] = AUTHTOKEN.format(name='swift', password=SERVICE_PASSWORD,
                                           keystone_url=keystone_url)
    put(directory, 'swift/swift.conf', SWIFT, values)
    put(directory, 'swift/internal-client.conf', INTERNAL_CLIENT, values)
    for name in ('account', 'container', 'object'):
        put(directory, 'swift/%s.conf' % name, STORAGE, dict(values, name=name, port=ports[name]))
    for name, port, auth in (('keystone', 'swift', 'authtoken keystoneauth'),
                             ('tempauth', 'tempauth', 'tempauth')):
        put(directory, 'swift/proxy-%s.conf' % name, PROXY,
            dict(values, port=ports[port], auth=auth))


def write_rings(swift, ports):
    """One device and one partition: the container updater forks once per partition."""
    from swift.common.ring import RingBuilder
    os.makedirs(os.path.join(swift, 'devices', 'd1'))
    for name in ('account', 'container', 'object'):
        ring = RingBuilder(0, 1, 1)
        ring.add_dev({'id': 0, 'region': 1, 'zone': 1, 'ip': HOST, 'port': ports[name],
                      'replication_ip': HOST, 'replication_port': ports[name],
                      'device': 'd1', 'weight': 100.0, 'meta': ''})
        ring.rebalance()
        ring.get_ring().save(os.path.join(swift, name + '.ring.gz'))


def put(directory, name, template, values):
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as file:
        file.write(template.format(**values))
