"""Deploys through python-hpilo as ironic's ilo driver did: insert, boot once, power."""
import os
import sys
import time

import hpilo

port, url, name = sys.argv[1:]
ilo = hpilo.Ilo("127.0.0.1", "root", os.environ["ILO_PASSWORD"], port=int(port), timeout=30)


def until(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


version = ilo.get_fw_version()
assert version["management_processor"] == name, version
assert "Advanced" in version["license_type"], version
assert ilo.get_product_name().startswith("ProLiant"), ilo.get_product_name()
assert "Advanced" in ilo.get_all_licenses()[0]["license_type"]
health = ilo.get_embedded_health()
assert health["health_at_a_glance"]["fans"]["status"] == "OK", health
assert ilo.get_host_power_status() == "OFF"
assert ilo.get_one_time_boot() == "normal"
assert len(ilo.get_persistent_boot()) > 1

try:
    ilo.eject_virtual_media("CDROM")
    raise AssertionError("an empty drive was ejected")
except hpilo.IloError as error:
    assert "No image present" in str(error), error

ilo.insert_virtual_media("CDROM", url)
ilo.set_vm_status("CDROM", boot_option="BOOT_ONCE", write_protect=True)
status = ilo.get_vm_status("CDROM")
assert status["image_inserted"] == "YES" and status["image_url"] == url, status
assert status["boot_option"] == "BOOT_ONCE", status
ilo.set_one_time_boot("CDROM")
assert ilo.get_one_time_boot().lower() == "cdrom", ilo.get_one_time_boot()
ilo.set_host_power(True)
until("the power is on", lambda: ilo.get_host_power_status() == "ON")
until("the boot has begun", lambda: ilo.get_one_time_boot() == "normal")
ilo.hold_pwr_btn()
until("the power is off", lambda: ilo.get_host_power_status() == "OFF")
ilo.eject_virtual_media("CDROM")
assert ilo.get_vm_status("CDROM")["image_inserted"] == "NO"

wrong = hpilo.Ilo("127.0.0.1", "root", "wrong", port=int(port), timeout=30)
try:
    wrong.get_fw_version()
    raise AssertionError("a wrong password was accepted")
except hpilo.IloLoginFailed:
    pass
