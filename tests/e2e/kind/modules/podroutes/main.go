// podroutes keeps one IPv4 route for each other node of the cluster: its pods' addresses by way of its own address.
//
// kind's own images bring kindnetd for this, which is to be had as an image only. The rest of what kindnetd does
// (the CNI configuration, masquerading) is in the node image's files.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// resync repeats every route this often: a node that was restarted has lost them.
const resync = 15 * time.Second

func gateway(node *corev1.Node) net.IP {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			if ip := net.ParseIP(address.Address).To4(); ip != nil {
				return ip
			}
		}
	}
	return nil
}

func route(node *corev1.Node) {
	via := gateway(node)
	if via == nil || node.Name == os.Getenv("NODE_NAME") {
		return
	}
	for _, text := range node.Spec.PodCIDRs {
		_, pods, err := net.ParseCIDR(text)
		if err != nil || pods.IP.To4() == nil {
			continue
		}
		if err := netlink.RouteReplace(&netlink.Route{Dst: pods, Gw: via}); err != nil {
			log.Printf("route to %s via %s: %v", pods, via, err)
		}
	}
}

func main() {
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	// kind fills this in, so that routes do not wait for kube-proxy.
	if endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT"); endpoint != "" {
		config.Host = "https://" + endpoint
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	informer := informers.NewSharedInformerFactory(client, resync).Core().V1().Nodes().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(added any) { route(added.(*corev1.Node)) },
		UpdateFunc: func(_, changed any) { route(changed.(*corev1.Node)) },
	}); err != nil {
		log.Fatal(err)
	}
	informer.Run(stop.Done())
}
