# Values derived from variables. Nothing here calls AWS, so the tests evaluate this file with Terraform.

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

  # One entry per job node group. Labels and taint match the policy's node_selector and tolerations.
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
        # Without this label the autoscaler counts a node without registered GPUs as full, and adds more.
        # https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md#special-note-on-gpu-instances
        pool.gpus > 0 ? { "k8s.amazonaws.com/accelerator" = pool.gpu_type } : {},
      )

      # Always NoSchedule: a pod without the toleration would keep the node.
      taint = pool.gpus > 0 ? { key = "nvidia.com/gpu", value = "true" } : { key = local.pool_label, value = name }

      # Hints for the autoscaler while a group is empty. Without the disk hint no group would leave zero, since every
      # job requests ephemeral-storage. Nominal cpu and memory would add nodes for jobs that do not fit.
      # The system and images keep a fifth of the disk, at least 20 GiB.
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

  # One entry per launch template: system nodes, and each job node group.
  launch_templates = merge(
    { system = { disk_gib = var.system_nodes.disk_gib, gpu = false } },
    { for name, group in local.node_groups : name => { disk_gib = group.disk_gib, gpu = group.gpu } },
  )

  # Auto Scaling group tags: "group key" -> group, key and value.
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

  # Percent of monthly_budget_usd. The forecast comes first, since billing data is hours old.
  budget_alarms = {
    half     = { threshold = 50, type = "ACTUAL" }
    most     = { threshold = 80, type = "ACTUAL" }
    all      = { threshold = 100, type = "ACTUAL" }
    forecast = { threshold = 100, type = "FORECASTED" }
  }

  # Values for each pool of the policy, except its price.
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
      # Not a conditional: it would convert both sides to one type, and the number of GPUs to a string.
      { for key, value in { gpu = pool.gpus, gpu_type = pool.gpu_type } : key => value if pool.gpus > 0 },
    )
  }
}
