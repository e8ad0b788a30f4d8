"""Where releases run: inventory, SSH and the program on the device. Imports only storage.errors."""
