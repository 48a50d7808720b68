package main

import (
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// peerActor is the user at the other end of the socket, as the kernel says.
func peerActor(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "nobody"
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "nobody"
	}
	actor := "nobody"
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			actor = "os:" + strconv.FormatUint(uint64(cred.Uid), 10)
		}
	}); err != nil {
		return "nobody"
	}
	return actor
}
