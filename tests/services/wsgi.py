"""gunicorn's way to an OpenStack application: wsgi:load('keystone.wsgi.api').

oslo.config parses sys.argv, so gunicorn's own arguments have to be gone before the import.
"""
import importlib
import sys


def load(module):
    sys.argv = sys.argv[:1]
    return importlib.import_module(module).application
