// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// folders makes one folder per claim. All nodes of a local cluster share the machine's disk, so that any
// access mode is true, ReadWriteMany too. Mode 0777 without fsGroup: hostPath volumes ignore fsGroup, and
// pods of the restricted profile write as a user of their own.
type folders struct{ root string }

func (f *folders) folder(volume string) (string, error) {
	if volume == "" || filepath.Base(volume) != volume || volume[0] == '.' {
		return "", fmt.Errorf("volume name %q is not a plain file name", volume)
	}
	return filepath.Join(f.root, volume), nil
}

func (f *folders) Provision(_ context.Context, options controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	if mode := options.PVC.Spec.VolumeMode; mode != nil && *mode == core.PersistentVolumeBlock {
		return nil, controller.ProvisioningFinished, errors.New("volumeMode Block is not offered here, only Filesystem")
	}
	folder, err := f.folder(options.PVName)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	if err := os.Mkdir(folder, 0o777); err != nil && !os.IsExist(err) {
		return nil, controller.ProvisioningFinished, err
	}
	if err := os.Chmod(folder, 0o777); err != nil { // Mkdir's mode is cut by the umask
		return nil, controller.ProvisioningFinished, err
	}
	kind := core.HostPathDirectory
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   options.PVC.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: options.PVC.Spec.Resources.Requests[core.ResourceStorage]},
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: folder, Type: &kind},
			},
		},
	}, controller.ProvisioningFinished, nil
}

func (f *folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	folder, err := f.folder(volume.Name)
	if err != nil {
		return err
	}
	if volume.Spec.HostPath == nil || volume.Spec.HostPath.Path != folder {
		return &controller.IgnoredError{Reason: "its folder is not one of ours"}
	}
	return os.RemoveAll(folder)
}

func runVolumeProvisioner(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("volume-provisioner", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "file with the address of and the credentials for the API server")
	root := flags.String("root", "", "folder in which the volumes' folders are made")
	name := flags.String("name", "tuneyard.io/local-folder", "the provisioner's name in its StorageClass")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !filepath.IsAbs(*root) {
		return fmt.Errorf("-root must be an absolute path (got %q)", *root)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	controller.NewProvisionController(ctx, client, *name, &folders{root: *root}, controller.LeaderElection(false)).Run(ctx)
	return nil
}
