"""Everything that ends a run on purpose.

    StressVisionError
    ├── InputError (ValueError)            a file, data set or configuration that can't be used
    ├── StoreError (OSError)               the object store doesn't answer, refuses, or contradicts itself
    │   └── MissingObject (FileNotFoundError)
    ├── ModelError (RuntimeError)          a network that can't be built, trained, converted or loaded
    └── FleetError (RuntimeError)          the inventory or the fleet as a whole can't be used
        └── DeviceError (ConnectionError)  one device: names it, what it was asked, and what to do

A message says what failed and where, what was expected and what was found, and what to do next.
It never holds a secret. All of them pickle, so that they cross process borders.
"""


class StressVisionError(Exception):
    """Base of all errors that a user is meant to read."""


class InputError(StressVisionError, ValueError):
    """A file, a data set or a configuration value that can't be used as it is."""


class StoreError(StressVisionError, OSError):
    """The object store doesn't answer, refuses the key, or its content contradicts its manifest."""


class MissingObject(StoreError, FileNotFoundError):
    """There is no object of that key."""


class ModelError(StressVisionError, RuntimeError):
    """A network that can't be built, trained, converted or loaded."""


class FleetError(StressVisionError, RuntimeError):
    """The inventory, or the fleet as a whole, can't be used."""


class DeviceError(FleetError, ConnectionError):
    """One device that can't be reached, refused us, or did not do what it was asked."""
