output "cluster_name" {
  description = "Name of the cluster, for aws eks update-kubeconfig."
  value       = aws_eks_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "update_kubeconfig" {
  description = "The command that gives kubectl access, with a role of admin_role_arns."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${aws_eks_cluster.this.name}"
}

output "vpc_id" {
  description = "The VPC, for peering and VPN."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "Zone to private subnet."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
}

output "nat_public_ips" {
  description = "The addresses that the cluster has towards the internet."
  value       = [for address in aws_eip.nat : address.public_ip]
}

output "repository_urls" {
  description = "Repository to its address, for docker push and for the policy's images.allow."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "policy_pools" {
  description = "Values for each pool of Runway's policy, except hourly_usd."
  value       = local.policy_pools
}

output "tenant_roles" {
  description = "Tenant to the IAM role of its jobs. Set pod_identity: true for these tenants in the policy."
  value       = { for name, role in aws_iam_role.tenant : name => role.arn }
}
