"""Where releases run: the fleet's inventory, SSH, and the program on the device. Imports only storage.errors."""
