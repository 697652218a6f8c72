"""Live views for notebooks: Python hands on what the data plane tells, JavaScript and CSS of our own draw it."""
