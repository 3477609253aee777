// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	socketName  = "tuneyard-fake-gpu.sock"
	lookAgain   = 500 * time.Millisecond
	registerFor = 5 * time.Second
)

// fakeGPUs answers the kubelet's device plugin calls. A device is unhealthy while its index stands in
// the file `sick` (indexes parted by white space), so that a test can break a GPU.
type fakeGPUs struct {
	plugin.UnimplementedDevicePluginServer
	count int
	sick  string
}

func deviceName(index string) string { return "GPU-fake-" + index }

func (g *fakeGPUs) devices(sick string) []*plugin.Device {
	unhealthy := map[string]bool{}
	for _, index := range strings.Fields(sick) {
		unhealthy[deviceName(index)] = true
	}
	var devices []*plugin.Device
	for i := range g.count {
		device := &plugin.Device{ID: deviceName(fmt.Sprint(i)), Health: plugin.Healthy}
		if unhealthy[device.ID] {
			device.Health = plugin.Unhealthy
		}
		devices = append(devices, device)
	}
	return devices
}

func (g *fakeGPUs) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

func (g *fakeGPUs) ListAndWatch(_ *plugin.Empty, stream plugin.DevicePlugin_ListAndWatchServer) error {
	for sent, first := "", true; ; first = false {
		raw, _ := os.ReadFile(g.sick) // no such file: all are healthy
		if sick := string(raw); first || sick != sent {
			if err := stream.Send(&plugin.ListAndWatchResponse{Devices: g.devices(sick)}); err != nil {
				return err
			}
			sent = sick
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(lookAgain):
		}
	}
}

func (g *fakeGPUs) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	response := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		log.Println("allocate", container.DevicesIds)
		response.ContainerResponses = append(response.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return response, nil
}

func runDevicePlugin(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("device-plugin", flag.ExitOnError)
	count := flags.Int("count", 8, "number of devices")
	resource := flags.String("resource", "nvidia.com/gpu", "name of the resource")
	sick := flags.String("sick", "", "file that lists the indexes of unhealthy devices")
	if err := flags.Parse(args); err != nil {
		return err
	}
	gpus := &fakeGPUs{count: *count, sick: *sick}
	// A starting kubelet empties its folder of plugin sockets, and forgets who had registered:
	// whenever our socket is gone, listen and register anew.
	for ctx.Err() == nil {
		if err := serveUntilForgotten(ctx, gpus, *resource); err != nil {
			return err
		}
	}
	return nil
}

func serveUntilForgotten(ctx context.Context, gpus *fakeGPUs, resource string) error {
	socket := filepath.Join(plugin.DevicePluginPath, socketName)
	if err := os.MkdirAll(plugin.DevicePluginPath, 0o750); err != nil { // the kubelet may not have come so far yet
		return err
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	plugin.RegisterDevicePluginServer(server, gpus)
	go server.Serve(listener)
	defer server.Stop()
	for registered := false; ctx.Err() == nil; {
		if !registered {
			if err := register(ctx, resource); err != nil {
				log.Println("register:", err)
			} else {
				registered = true
				log.Println("registered", gpus.count, resource)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
		if _, err := os.Stat(socket); err != nil {
			return nil
		}
	}
	return nil
}

func register(ctx context.Context, resource string) error {
	connection, err := grpc.NewClient("unix://"+plugin.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, registerFor)
	defer cancel()
	_, err = plugin.NewRegistrationClient(connection).Register(ctx, &plugin.RegisterRequest{
		Version: plugin.Version, Endpoint: socketName, ResourceName: resource,
	})
	return err
}
