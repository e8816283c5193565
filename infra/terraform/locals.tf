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

  # Pool -> zone -> the largest size of its node group there. The sizes add up to max_nodes.
  zone_sizes = {
    for name, pool in var.pools : name => {
      for index, zone in local.pool_zones[name] : zone =>
      floor(pool.max_nodes / length(local.pool_zones[name])) + (index < pool.max_nodes % length(local.pool_zones[name]) ? 1 : 0)
    }
  }
  pool_zones = { for name, pool in var.pools : name => coalesce(pool.zones, var.availability_zones) }

  # One group per pool and zone: an Auto Scaling group over several zones ends nodes to balance them, with their jobs.
  # https://docs.aws.amazon.com/autoscaling/ec2/userguide/auto-scaling-benefits.html#AutoScalingBehavior.InstanceUsage
  zonal_groups = merge([
    for name, sizes in local.zone_sizes : {
      for zone, size in sizes : "${name}-${zone}" => { pool = name, zone = zone, max_size = size } if size > 0
    }
  ]...)

  # One entry per pool. Labels and taint match the policy's node_selector and tolerations.
  node_groups = {
    for name, pool in var.pools : name => {
      instance_type = pool.instance_type
      max_size      = pool.max_nodes
      disk_gib      = pool.disk_gib
      local_disk    = pool.local_disk_gib > 0
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
      # The autoscaler subtracts every daemon from the hint, so it is larger than the policy's pool by what daemons take.
      # The system and images keep a fifth of the disk, at least 20 GiB.
      resources = merge(
        {
          cpu                 = "${pool.cpu * 1000 + local.daemon_millicpu}m"
          memory              = "${pool.memory_gib + local.daemon_gib}Gi"
          "ephemeral-storage" = "${local.job_disk[name] - max(20, ceil(local.job_disk[name] / 5))}Gi"
        },
        pool.gpus > 0 ? { "nvidia.com/gpu" = tostring(pool.gpus) } : {},
      )
    }
  }

  # Requests of the DaemonSets of a node: CNI, kube-proxy, pod identity, node monitoring, device plugin and exporter.
  daemon_millicpu = 500
  daemon_gib      = 1

  # Pool -> GiB of the disk that holds scratch data and images.
  job_disk = { for name, pool in var.pools : name => pool.local_disk_gib > 0 ? pool.local_disk_gib : pool.disk_gib }

  # gp3 gives 125 MiB/s without extra cost. Job nodes unpack images of many GB while they cost their full price.
  launch_templates = merge(
    { system = { disk_gib = var.system_nodes.disk_gib, throughput = 125, gpu = false, local_disk = false } },
    {
      for name, group in local.node_groups : name => {
        disk_gib   = group.disk_gib
        throughput = 500
        gpu        = group.gpu
        local_disk = group.local_disk
      }
    },
  )

  # Auto Scaling group tags: "group key" -> group, key and value.
  autoscaler_tags = merge([
    for name, group in local.zonal_groups : {
      for key, value in merge(
        { for label, value in local.node_groups[group.pool].labels : "label/${label}" => value },
        { "taint/${local.node_groups[group.pool].taint.key}" = "${local.node_groups[group.pool].taint.value}:NoSchedule" },
        { for resource, amount in local.node_groups[group.pool].resources : "resources/${resource}" => amount },
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
