job "tatami-worker" {
  type        = "service"
  datacenters = ["*"]

  group "worker" {
    count = 1

    constraint {
      value    = "true"
      operator = "distinct_hosts"
    }

    task "worker" {
      driver       = "raw_exec"
      kill_timeout = "30s"
      kill_signal  = "SIGTERM"

      config {
        args = [
          "worker",
          "--token-file", "${NOMAD_SECRETS_DIR}/worker.token",
          "--data-dir", "/var/lib/tatami-worker",
          "--run-dir", "/run/tatami-worker",
          "--listen", "${attr.unique.network.ip-address}:0",
          "--node-name", "${node.unique.name}",
          "--drain-timeout", "22s",
          "--log-format", "json",
        ]
        command = "/usr/local/bin/tatami"
      }

      env {
        TATAMI_NODE_COMPUTE = "${attr.cpu.totalcompute}"
      }

      resources {
        cores  = 2
        memory = 4096
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }

      template {
        destination = "secrets/worker.token"
        data        = <<EOT
{{ with nomadVar "nomad/jobs/tatami-worker" }}{{ .token }}{{ end }}
EOT
        change_mode = "noop"
        perms       = "0600"
      }

      template {
        destination = "secrets/join.env"
        data        = <<EOT
TATAMI_JOIN={{ range $i, $s := nomadService "tatami-nats" }}{{ if $i }},{{ end }}nats://{{ .Address }}:{{ .Port }}{{ end }}
EOT
        change_mode = "noop"
        env         = true
      }
    }

    task "sweep" {
      driver = "raw_exec"

      lifecycle {
        hook = "poststop"
      }

      config {
        args = [
          "worker",
          "--sweep",
          "--data-dir", "/var/lib/tatami-worker",
          "--run-dir", "/run/tatami-worker",
          "--node-name", "${node.unique.name}",
          "--log-format", "json",
        ]
        command = "/usr/local/bin/tatami"
      }

      resources {
        cpu    = 100
        memory = 256
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }
    }

    restart {
      interval = "5m0s"
      attempts = 10
      delay    = "1s"
      mode     = "delay"
    }

    disconnect {
      lost_after = "1m0s"
      replace    = true
      reconcile  = "keep_original"
    }

    update {
      max_parallel      = 1
      health_check      = "task_states"
      min_healthy_time  = "5s"
      healthy_deadline  = "3m0s"
      progress_deadline = "10m0s"
    }

    migrate {
      max_parallel     = 1
      health_check     = "task_states"
      min_healthy_time = "5s"
      healthy_deadline = "3m0s"
    }

    scaling {
      min     = 1
      max     = 10
      enabled = true
    }
  }
}
