"""What only a GPU can show: right results on a device, what the device can do at most, and how close we come."""
