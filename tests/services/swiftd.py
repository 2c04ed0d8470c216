"""Runs one Swift program with its configuration outside of /etc/swift.

usage: swiftd.py CONFIG_DIRECTORY PROGRAM ARGUMENT...

The servers honour swift_dir; expirer and updater read /etc/swift/swift.conf unless they are told
otherwise before anything else of Swift is imported.
"""
import os
import runpy
import sys

directory, program = sys.argv[1:3]
from swift.common import utils  # noqa: E402

utils.set_swift_dir(directory)
script = os.path.join(os.path.dirname(sys.executable), program)
sys.argv = [script] + sys.argv[3:]
runpy.run_path(script, run_name='__main__')
