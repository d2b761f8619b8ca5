# What the servers of Tatami need: to see the job of their workers and its nodes, and to scale it.
namespace "default" {
  capabilities = ["list-jobs", "read-job", "scale-job"]
}

node {
  policy = "read"
}
