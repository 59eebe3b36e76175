-- In an app's session: messages of events that the guest published. ? seq, ? token, ? a list of messages, ? all bodies in one.
CALL ENGINE.publish(?, ?, ?, ?)
