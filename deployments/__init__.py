"""Where releases run: inventory, SSH and the program on the device.

Of ours it imports storage.errors and storage.files.
"""
