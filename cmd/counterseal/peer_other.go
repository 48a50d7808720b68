//go:build !linux

package main

import "net"

// peerActor is the user of the server: the socket opens to that user alone.
func peerActor(net.Conn) string { return ownActor() }
