// SPDX-License-Identifier: Apache-2.0

// The two small programs that a local cluster needs beside Kubernetes itself, in one binary:
//
//	device-plugin       offers fake GPUs to a node's kubelet
//	volume-provisioner  makes a folder of this machine's disk for each claim
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	programs := map[string]func(context.Context, []string) error{
		"device-plugin":      runDevicePlugin,
		"volume-provisioner": runVolumeProvisioner,
	}
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: node-agents device-plugin|volume-provisioner [flags]")
		os.Exit(2)
	}
	if err := programs[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
