# What follows from the variables alone. Nothing here asks AWS, so the tests evaluate this file with Terraform itself.

locals {
  tags = {
    Project   = var.name
    ManagedBy = "terraform"
  }

  # Private: a /20 per zone from the bottom of the /16. Public: a /24 per zone from its top, for NAT gateways only.
  private_subnets = { for index, zone in var.availability_zones : zone => cidrsubnet(var.vpc_cidr, 4, index) }
  public_subnets  = { for index, zone in var.availability_zones : zone => cidrsubnet(var.vpc_cidr, 8, 240 + index) }

  # Zone -> the zone whose NAT gateway it uses.
  nat_zone = { for zone in var.availability_zones : zone => var.single_nat_gateway ? var.availability_zones[0] : zone }

  pool_label = "runway.internal/pool"

  # One entry per node group of jobs. Labels and taint are what the policy's node_selector and tolerations name.
  node_groups = {
    for name, pool in var.pools : name => {
      instance_type = pool.instance_type
      max_size      = pool.max_nodes
      disk_gib      = pool.disk_gib
      gpu           = pool.gpus > 0
      ami_type      = pool.gpus > 0 ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
      capacity_type = pool.spot ? "SPOT" : "ON_DEMAND"

      labels = merge(
        { (local.pool_label) = name },
        # Without this label the autoscaler takes a node whose GPUs are not registered yet for a full one, and adds more.
        # https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md#special-note-on-gpu-instances
        pool.gpus > 0 ? { "k8s.amazonaws.com/accelerator" = pool.gpu_type } : {},
      )

      # Always NoSchedule: only what tolerates it may start here, and so hold the node.
      taint = pool.gpus > 0 ? { key = "nvidia.com/gpu", value = "true" } : { key = local.pool_label, value = name }

      # What the autoscaler may expect of a node while there is none. It takes cpu and memory from the instance type's
      # nominal size and knows nothing of disks: every job asks for ephemeral-storage, so without that hint no group
      # would ever leave zero, and without the other two a job that only fits a nominal node would add nodes in vain.
      # A fifth of the disk, and at least 20 GiB, is left to the system and to images.
      resources = merge(
        {
          cpu                 = tostring(pool.cpu)
          memory              = "${pool.memory_gib}Gi"
          "ephemeral-storage" = "${pool.disk_gib - max(20, ceil(pool.disk_gib / 5))}Gi"
        },
        pool.gpus > 0 ? { "nvidia.com/gpu" = tostring(pool.gpus) } : {},
      )
    }
  }

  # One entry per launch template: of the system nodes, and of each group of jobs.
  launch_templates = merge(
    { system = { disk_gib = var.system_nodes.disk_gib, gpu = false } },
    { for name, group in local.node_groups : name => { disk_gib = group.disk_gib, gpu = group.gpu } },
  )

  # Auto Scaling group tags: "group key" -> where and what.
  autoscaler_tags = merge([
    for name, group in local.node_groups : {
      for key, value in merge(
        { for label, value in group.labels : "label/${label}" => value },
        { "taint/${group.taint.key}" = "${group.taint.value}:NoSchedule" },
        { for resource, amount in group.resources : "resources/${resource}" => amount },
      ) :
      "${name} ${key}" => {
        group = name
        key   = "k8s.io/cluster-autoscaler/node-template/${key}"
        value = value
      }
    }
  ]...)

  # Percent of monthly_budget_usd. A forecast comes first, since billing data is hours old.
  budget_alarms = {
    half     = { threshold = 50, type = "ACTUAL" }
    most     = { threshold = 80, type = "ACTUAL" }
    all      = { threshold = 100, type = "ACTUAL" }
    forecast = { threshold = 100, type = "FORECASTED" }
  }

  # What the policy has to say of each pool, beside its price.
  policy_pools = {
    for name, pool in var.pools : name => merge(
      {
        instance_type = pool.instance_type
        cpu           = tostring(pool.cpu)
        memory        = "${pool.memory_gib}Gi"
        node_selector = { (local.pool_label) = name }
        tolerations = [{
          key      = local.node_groups[name].taint.key
          operator = "Equal"
          value    = local.node_groups[name].taint.value
          effect   = "NoSchedule"
        }]
      },
      # Not a conditional: its two sides would be made one type, and the number of GPUs a string.
      { for key, value in { gpu = pool.gpus, gpu_type = pool.gpu_type } : key => value if pool.gpus > 0 },
    )
  }
}
