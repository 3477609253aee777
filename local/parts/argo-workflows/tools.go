//go:build tools

// SPDX-License-Identifier: Apache-2.0

// The programs of Argo Workflows that are built from this module, so that go.mod and go.sum have what they need.
package main

import (
	_ "github.com/argoproj/argo-workflows/v3/cmd/argo/commands"
	_ "github.com/argoproj/argo-workflows/v3/cmd/argoexec/commands"
	_ "github.com/argoproj/argo-workflows/v3/cmd/workflow-controller"
)
