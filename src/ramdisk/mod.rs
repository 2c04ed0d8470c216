//! What runs on the node between the deploy ramdisk's boot and its reboot.
