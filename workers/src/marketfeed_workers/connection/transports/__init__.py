"""WebSocket libraries behind one seam: `socket` says what a session needs, each other module is one library."""
