# System nodes are always on and run no jobs. Each pool of the policy, CPU or GPU, has one group per zone that starts at
# zero. The cluster autoscaler (autoscaler.tf, infra/kubernetes) scales the groups; together they have max_nodes at most.

resource "aws_eks_node_group" "system" {
  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "system-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = [for subnet in aws_subnet.private : subnet.id]
  version                = var.kubernetes_version
  ami_type               = "AL2023_x86_64_STANDARD"
  instance_types         = [var.system_nodes.instance_type]
  labels                 = { (local.pool_label) = "system" }

  launch_template {
    id      = aws_launch_template.node["system"].id
    version = aws_launch_template.node["system"].latest_version
  }

  scaling_config {
    min_size     = var.system_nodes.count
    max_size     = var.system_nodes.count
    desired_size = var.system_nodes.count
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  lifecycle {
    create_before_destroy = true
  }

  # A node needs egress (images), permissions and its network plugin before it can become ready.
  depends_on = [
    aws_eks_addon.kube_proxy,
    aws_eks_addon.vpc_cni,
    aws_iam_role_policy_attachment.node,
    aws_route.private_nat,
    aws_route_table_association.private,
    aws_route_table_association.public,
  ]
}

resource "aws_eks_node_group" "jobs" {
  for_each = local.zonal_groups

  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "${each.key}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = [aws_subnet.private[each.value.zone].id]
  version                = var.kubernetes_version
  ami_type               = local.node_groups[each.value.pool].ami_type
  capacity_type          = local.node_groups[each.value.pool].capacity_type
  instance_types         = [local.node_groups[each.value.pool].instance_type]
  labels                 = local.node_groups[each.value.pool].labels

  launch_template {
    id      = aws_launch_template.node[each.value.pool].id
    version = aws_launch_template.node[each.value.pool].latest_version
  }

  scaling_config {
    min_size     = 0
    max_size     = each.value.max_size
    desired_size = 0
  }

  taint {
    key    = local.node_groups[each.value.pool].taint.key
    value  = local.node_groups[each.value.pool].taint.value
    effect = "NO_SCHEDULE"
  }

  update_config {
    max_unavailable = 1
  }

  # EKS replaces a node that the monitoring agent reports as broken, GPUs included. Its jobs are disrupted.
  # https://docs.aws.amazon.com/eks/latest/userguide/node-health.html
  node_repair_config {
    enabled                           = true
    max_parallel_nodes_repaired_count = 1
  }

  lifecycle {
    create_before_destroy = true
    # The autoscaler owns this value: an apply must not remove nodes with running jobs.
    ignore_changes = [scaling_config[0].desired_size]
  }

  # A node needs egress (images), permissions and its network plugin before it can become ready.
  depends_on = [
    aws_eks_addon.kube_proxy,
    aws_eks_addon.vpc_cni,
    aws_iam_role_policy_attachment.node,
    aws_route.private_nat,
    aws_route_table_association.private,
    aws_route_table_association.public,
  ]
}

# The autoscaler reads tags of the Auto Scaling group, and a managed node group does not copy its tags there.
resource "aws_autoscaling_group_tag" "autoscaler" {
  for_each = local.autoscaler_tags

  autoscaling_group_name = aws_eks_node_group.jobs[each.value.group].resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.value.key
    value               = each.value.value
    propagate_at_launch = false
  }
}

# Hop limit 1 keeps instance metadata, and so the node's credentials, from containers with their own network.
# CNI, kube-proxy and pod identity agent need the metadata and run in the node's network.
resource "aws_launch_template" "node" {
  for_each = local.launch_templates

  name_prefix            = "${var.name}-${each.key}-"
  update_default_version = true

  user_data = each.value.gpu || each.value.local_disk ? base64encode(templatefile("${path.module}/job-node.mime.tftpl", {
    gpu        = each.value.gpu
    local_disk = each.value.local_disk
  })) : null

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.disk_gib
      throughput            = each.value.throughput
      encrypted             = true
      delete_on_termination = true
    }
  }

  # AWS creates instances and disks, so the provider's default tags do not reach them.
  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })
    }
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  description        = "Nodes of ${var.name}: join the cluster, pull images, Session Manager"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# Session Manager is the way onto a node, for example to read the kernel log. Nodes have no SSH key and no open port.
resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy", "AmazonSSMManagedInstanceCore"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}
