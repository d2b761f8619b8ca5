job "tatami" {
  type        = "service"
  priority    = 80
  datacenters = ["*"]

  group "server" {
    count          = 3
    shutdown_delay = "2s"

    constraint {
      value    = "true"
      operator = "distinct_hosts"
    }

    constraint {
      attribute = "${meta.tatami_server}"
      value     = "true"
      operator  = "="
    }

    task "server" {
      driver       = "raw_exec"
      kill_timeout = "30s"
      kill_signal  = "SIGTERM"

      config {
        args = [
          "server",
          "--cluster", "tatami",
          "--peers-service", "tatami-cluster",
          "--peers-count", "3",
          "--cluster-listen", "${attr.unique.network.ip-address}:6222",
          "--relay-listen", "${attr.unique.network.ip-address}:6223",
          "--nats-listen", "${attr.unique.network.ip-address}:4222",
          "--public-addr", "0.0.0.0:8080",
          "--control-addr", "",
          "--cluster-secret", "${NOMAD_SECRETS_DIR}/cluster.secret",
          "--data-dir", "/var/lib/tatami-server",
          "--run-dir", "/run/tatami",
          "--node-name", "${node.unique.name}",
          "--nomad-job", "tatami-worker",
          "--log-format", "json",
        ]
        command = "/usr/local/bin/tatami"
      }

      env {
        NOMAD_ADDR = "unix://${NOMAD_SECRETS_DIR}/api.sock"
      }

      resources {
        cpu    = 1000
        memory = 2048
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }

      template {
        destination = "secrets/cluster.secret"
        data        = <<EOT
{{ with nomadVar "nomad/jobs/tatami" }}{{ .cluster_secret }}{{ end }}
EOT
        change_mode = "noop"
        perms       = "0600"
      }

      identity {
        env = true
      }
    }

    restart {
      interval = "5m0s"
      attempts = 10
      delay    = "1s"
      mode     = "delay"
    }

    disconnect {
      lost_after = "1h0m0s"
      replace    = false
      reconcile  = "keep_original"
    }

    update {
      max_parallel      = 1
      health_check      = "checks"
      min_healthy_time  = "10s"
      healthy_deadline  = "5m0s"
      progress_deadline = "10m0s"
      auto_revert       = true
    }

    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "10s"
      healthy_deadline = "5m0s"
    }

    network {
      port "http" {
        static = 8080
      }

      port "nats" {
        static = 4222
      }

      port "cluster" {
        static = 6222
      }

      port "relay" {
        static = 6223
      }
    }

    service {
      name     = "tatami-http"
      port     = "http"
      provider = "nomad"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        port     = "http"
        interval = "5s"
        timeout  = "2s"
      }
    }

    service {
      name     = "tatami-nats"
      port     = "nats"
      provider = "nomad"
    }

    service {
      name     = "tatami-cluster"
      port     = "cluster"
      provider = "nomad"
    }
  }
}
