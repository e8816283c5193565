// Command gpu-device-plugin registers simulated GPUs with the kubelet.
//
// THE GPUS ARE SIMULATED. No device node is mounted, no driver is needed and nothing computes on them. What is real is
// everything Kubernetes does with them: the kubelet's allocation, "Insufficient nvidia.com/gpu", quota, and the
// NVIDIA_VISIBLE_DEVICES variable in the container. Their identifiers start with GPU-sim-, and the node carries the label
// runway.local/simulated-gpus=true.
//
// Life of the plugin, repeated for as long as it runs
// (https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/):
//
//  1. listen on a socket of its own in the kubelet's device-plugin directory;
//  2. register that socket over the kubelet's own socket;
//  3. answer the kubelet's calls until the kubelet restarts: it then removes every socket in the directory and makes its
//     own again, so both are watched.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resourceName    = "nvidia.com/gpu"
	socketName      = "runway-simulated-gpu.sock"
	registerTimeout = 5 * time.Second
	// How soon a restarted kubelet is noticed: two stat calls each time.
	watchInterval = 250 * time.Millisecond
)

func main() {
	count := flag.Int("count", 8, "number of simulated GPUs")
	directory := flag.String("directory", pluginapi.DevicePluginPath, "the kubelet's device-plugin directory")
	flag.Parse()
	if *count < 1 {
		log.Fatalf("-count is %d; it must be at least 1", *count)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	log.Printf("SIMULATED GPUs: %d devices of %s that do not exist; nothing computes on them", *count, resourceName)
	for ctx.Err() == nil {
		if err := serveOneKubelet(ctx, *directory, simulatedDevices(*count)); err != nil {
			log.Printf("retrying: %v", err)
		}
		// Half to one and a half times the interval, so that a failing start is not retried in a tight loop.
		sleep(ctx, watchInterval/2+rand.N(watchInterval))
	}
	log.Print("stopped")
}

// serveOneKubelet serves and registers until the kubelet restarts or ctx ends, and reports what kept it from serving.
func serveOneKubelet(ctx context.Context, directory string, devices []*pluginapi.Device) error {
	kubeletSocket := filepath.Join(directory, filepath.Base(pluginapi.KubeletSocket))
	kubelet, err := os.Stat(kubeletSocket)
	if err != nil {
		return fmt.Errorf("the kubelet does not listen yet: %w", err)
	}

	ownSocket := filepath.Join(directory, socketName)
	if err := os.Remove(ownSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", ownSocket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, &plugin{devices: devices})
	serveError := make(chan error, 1)
	go func() { serveError <- server.Serve(listener) }()
	defer server.Stop()

	if err := register(ctx, kubeletSocket); err != nil {
		return fmt.Errorf("register with the kubelet: %w", err)
	}
	log.Printf("registered %d simulated devices as %s", len(devices), resourceName)

	for ctx.Err() == nil {
		select {
		case err := <-serveError:
			return err
		case <-ctx.Done():
			return nil
		case <-time.After(watchInterval):
		}
		current, err := os.Stat(kubeletSocket)
		if err != nil || !os.SameFile(kubelet, current) {
			log.Print("the kubelet restarted; registering again")
			return nil
		}
		if _, err := os.Stat(ownSocket); err != nil {
			log.Print("the plugin's socket is gone; registering again")
			return nil
		}
	}
	return nil
}

func register(ctx context.Context, kubeletSocket string) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+kubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = pluginapi.NewRegistrationClient(connection).Register(ctx, &pluginapi.RegisterRequest{
		Version:      pluginapi.Version,
		Endpoint:     socketName,
		ResourceName: resourceName,
		Options:      &pluginapi.DevicePluginOptions{},
	})
	return err
}

func simulatedDevices(count int) []*pluginapi.Device {
	devices := make([]*pluginapi.Device, count)
	for i := range devices {
		devices[i] = &pluginapi.Device{ID: fmt.Sprintf("GPU-sim-%d", i), Health: pluginapi.Healthy}
	}
	return devices
}

// plugin answers the kubelet; see the DevicePlugin service in the API's api.proto.
type plugin struct {
	// Answers Unimplemented to the two calls that are optional and not announced at registration.
	pluginapi.UnimplementedDevicePluginServer
	devices []*pluginapi.Device
}

func (p *plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

// ListAndWatch sends the devices once: a simulated device never changes its health.
func (p *plugin) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: p.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// Allocate tells each container its devices the way NVIDIA's own plugin does, by NVIDIA_VISIBLE_DEVICES.
func (p *plugin) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		// The kubelet gives them in no particular order.
		slices.Sort(container.DevicesIds)
		visible := strings.Join(container.DevicesIds, ",")
		log.Printf("allocated simulated devices %s", visible)
		response.ContainerResponses = append(response.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": visible},
		})
	}
	return response, nil
}

func sleep(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}
