//go:build tools

// Package tools pins helm-unittest, which runs the suites of the charts.
package tools

import _ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
