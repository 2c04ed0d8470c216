"""Drives an object store with python-swiftclient: the library, the command, and curl.

ST_AUTH, ST_USER, ST_KEY and OS_CACERT say where it is; the working directory is scratch space.
"""
import hashlib
import os
import subprocess
import sys
import time

from swiftclient.client import Connection
from swiftclient.exceptions import ClientException
from swiftclient.utils import generate_temp_url

CA = os.environ["OS_CACERT"]


def swift(*arguments, expect=0):
    """Runs the swift command and returns what it prints."""
    code = "import sys; from swiftclient.shell import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--os-cacert", CA, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == expect, (arguments, done)
    return done.stdout


def curl(*arguments):
    """Runs curl and returns the status and the body."""
    command = ["curl", "-sS", "--max-time", "30", "--cacert", CA, "-w", "%{http_code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, check=True)
    return int(done.stdout[-3:]), done.stdout[:-3]


def status_of(call, *arguments, **named):
    """Returns the HTTP status of a call that must fail."""
    try:
        call(*arguments, **named)
    except ClientException as error:
        return error.http_status
    raise AssertionError(f"{call} {arguments} must fail")


def check_command():
    body = os.urandom(3_000_000)
    with open("image.bin", "wb") as file:
        file.write(body)
    swift("post", "images")
    swift("upload", "images", "image.bin", "--object-name", "dir/one ü",
          "-H", "X-Object-Meta-Kernel-Id: k1", "-H", "X-Delete-After: 600")
    assert swift("list").split() == ["images"]
    assert swift("list", "images") == "dir/one ü\n"
    assert "3000000" in swift("list", "images", "--long")
    stat = swift("stat", "images", "dir/one ü")
    assert hashlib.md5(body).hexdigest() in stat, stat
    assert "Kernel-Id: k1" in stat and "X-Delete-At" in stat, stat
    swift("post", "images", "dir/one ü", "-m", "Boot-Iso:b2")
    stat = swift("stat", "images", "dir/one ü")
    assert "Boot-Iso: b2" in stat, stat
    assert "Kernel-Id" not in stat and "X-Delete-At" not in stat, stat
    swift("download", "images", "dir/one ü", "-o", "got.bin")
    with open("got.bin", "rb") as file:
        assert file.read() == body
    swift("download", "images", "none", expect=1)
    return body


def check_temp_urls(body):
    base = os.environ["ST_AUTH"].removesuffix("/auth/v1.0")
    account = "/v1/AUTH_flowrun"
    swift("post", "-m", "Temp-URL-Key:0123456789abcdef")
    plain = f"{account}/images/plain"
    swift("upload", "images", "image.bin", "--object-name", "plain")
    for digest in ("sha256", "sha512"):
        made = swift("tempurl", "--digest", digest, "GET", "60", plain, "0123456789abcdef").strip()
        url = base + made
        assert curl(url) == (200, body), digest
        assert curl("-r", "0-99", url) == (206, body[:100])
        assert curl("-r", "-100", url) == (206, body[-100:])
        assert curl("-r", "2999990-", url) == (206, body[2999990:])
        assert curl("-r", "3000000-", url)[0] == 416
        assert curl("-I", url)[0] == 200
        assert curl("-T", "image.bin", url)[0] == 401
    refusal = (401, b"401 Unauthorized: Temp URL invalid\n")
    for digest, seconds, key in (
        ("sha1", 60, "0123456789abcdef"),
        ("sha256", 60, "wrong"),
        ("sha512", 60, "wrong"),
    ):
        made = generate_temp_url(plain, seconds, key, "GET", digest=digest)
        assert curl(base + made) == refusal, digest
    past = generate_temp_url(plain, int(time.time()) - 1, "0123456789abcdef", "GET", absolute=True)
    assert curl(base + past) == refusal
    iso = generate_temp_url(plain, 60, "0123456789abcdef", "GET", iso8601=True)
    assert curl(base + iso)[0] == 200
    prefix = generate_temp_url(f"{account}/images/pl", 60, "0123456789abcdef", "GET", prefix=True)
    assert curl(base + prefix.replace("/pl?", "/plain?")) == (200, body)
    assert curl(base + prefix.replace("/pl?", "/other?")) == refusal
    for network, answer in (("127.0.0.0/8", (200, body)), ("192.0.2.0/24", refusal)):
        made = generate_temp_url(plain, 60, "0123456789abcdef", "GET", ip_range=network)
        assert curl(base + made) == answer, network


def check_large_objects(body):
    for name, how in (("slo", "--use-slo"), ("dlo", "--use-dlo")):
        swift("upload", "large", "image.bin", "-S", "1000000", how, "--object-name", name)
        listed = swift("list", "large_segments").split()
        assert len(listed) == 3 and all(row.startswith(name) for row in listed), listed
        swift("download", "large", name, "-o", "got.bin")
        with open("got.bin", "rb") as file:
            assert file.read() == body, name
        swift("delete", "large", name)
        assert swift("list", "large_segments") == "", "the segments go too"
    swift("delete", "large")
    swift("delete", "large_segments")


def check_library(body):
    connection = Connection(
        os.environ["ST_AUTH"], os.environ["ST_USER"], os.environ["ST_KEY"], cacert=CA, retries=0)
    info = connection.get_capabilities()
    assert info["tempurl"]["allowed_digests"] == ["sha256", "sha512"], info
    assert info["slo"]["max_manifest_segments"] == 1000
    assert info["swift"]["max_object_name_length"] == 1024
    connection.put_container("lib")
    etag = hashlib.md5(body).hexdigest()
    assert connection.put_object("lib", "o", body, etag=etag) == etag
    assert connection.put_object("lib", "chunked", iter([body, b"more"])) \
        == hashlib.md5(body + b"more").hexdigest()
    assert status_of(connection.put_object, "lib", "bad", body, etag="0" * 32) == 422
    assert status_of(connection.put_object, "none", "o", b"x") == 404
    assert status_of(connection.head_object, "lib", "bad") == 404
    assert status_of(connection.delete_container, "lib") == 409
    new = {"If-None-Match": "*"}
    assert status_of(connection.put_object, "lib", "o", b"x", headers=new) == 412
    assert status_of(connection.put_object, "lib", "m", b"", headers={"X-Delete-After": "0"}) == 400
    copy = {"X-Copy-From": "lib/o"}
    assert status_of(connection.put_object, "lib", "m", b"", headers=copy) == 501
    headers, got = connection.get_object("lib", "o", resp_chunk_size=65536)
    assert b"".join(got) == body and headers["etag"] == etag
    _, got = connection.get_object("lib", "o", headers={"Range": "bytes=5-9"})
    assert got == body[5:10]
    fresh = {"If-None-Match": etag}
    assert status_of(connection.get_object, "lib", "o", headers=fresh) == 304
    assert status_of(connection.get_object, "lib", "o", headers={"If-Match": "x"}) == 412
    headers, rows = connection.get_container("lib", full_listing=True)
    assert [row["name"] for row in rows] == ["chunked", "o"]
    assert rows[1]["hash"] == etag and rows[1]["bytes"] == len(body)
    assert headers["x-container-object-count"] == "2"
    headers, rows = connection.get_account()
    assert {row["name"]: row["count"] for row in rows} == {"images": 2, "lib": 2}
    assert headers["x-account-bytes-used"] == str(4 * len(body) + 4)
    for name in ("o", "chunked"):
        connection.delete_object("lib", name)
    connection.delete_container("lib")
    assert status_of(connection.head_container, "lib") == 404
    wrong = Connection(os.environ["ST_AUTH"], os.environ["ST_USER"], "wrong", cacert=CA, retries=0)
    assert status_of(wrong.get_account) == 401
    url, _ = connection.get_auth()
    other = Connection(preauthurl=url, preauthtoken="AUTH_tkwrong", cacert=CA, retries=0)
    assert status_of(other.get_account) == 401


BODY = check_command()
check_temp_urls(BODY)
check_large_objects(BODY)
check_library(BODY)
print("all checks passed")
