// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"
)

// Argo CD keeps only caches in Redis, so one in memory will do. miniredis is what Argo CD itself uses for its
// command line without a server; its clock stands still unless it is pushed, and Argo CD finds new commits by
// the expiry of what it cached.
func newRedisCommand() *cobra.Command {
	var listen string
	c := &cobra.Command{Use: "memory-redis", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		redis := miniredis.NewMiniRedis()
		if err := redis.StartAddr(listen); err != nil {
			return err
		}
		for range time.Tick(time.Second) {
			redis.FastForward(time.Second)
		}
		return nil
	}}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:6379", "address to listen on")
	return c
}
