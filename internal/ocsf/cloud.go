package ocsf

import (
	"strconv"
	"strings"
)

func (v *view) signin() {
	v.product = "Identity provider"
	v.is(classAuth, 1)
	v.outcome(v.text("result"))
	v.person("user.uid", v.first("user", "user_id"))
	v.person("actor.user.uid", v.first("user", "user_id"))
	v.address("src_endpoint.ip", v.text("src_ip"))
	v.set("src_endpoint.location.country", v.text("country"))
	v.device("src_endpoint.uid", v.text("device_id"))
	v.boolean("is_mfa", v.text("mfa"))
	v.set("service.name", v.text("app"))
	v.set("session.uid", v.text("session_id"))
	v.set("http_request.user_agent", v.text("user_agent"))
	v.set("status_detail", v.text("reason"))
}

func (v *view) entra() {
	v.product = "Microsoft Entra ID"
	v.is(classAuth, 1)
	switch code := v.first("status.errorCode", "resultType", "ResultType", "properties.status.errorCode"); code {
	case "":
	case "0":
		v.status = statusSuccess
	default:
		v.status = statusFailure
		v.set("status_code", code)
	}
	who := v.first("userPrincipalName", "UserPrincipalName", "properties.userPrincipalName", "userId", "UserId")
	v.person("user.uid", who)
	v.person("actor.user.uid", who)
	v.address("src_endpoint.ip", v.first("ipAddress", "IPAddress", "properties.ipAddress", "callerIpAddress"))
	v.set("src_endpoint.location.country", v.first("location.countryOrRegion", "properties.location.countryOrRegion"))
	v.device("src_endpoint.uid", v.first("deviceDetail.deviceId", "properties.deviceDetail.deviceId"))
	v.set("service.name", v.first("appDisplayName", "AppDisplayName", "properties.appDisplayName"))
	v.set("http_request.user_agent", v.first("userAgent", "UserAgent"))
	v.set("metadata.original_event_uid", v.first("id", "properties.id"))
	v.set("status_detail", v.text("status.failureReason"))
}

func (v *view) okta() {
	v.product = "Okta"
	v.severity = map[string]int{"WARN": 2, "ERROR": 3}[v.text("severity")]
	if v.severity == 0 {
		v.severity = severityInfo
	}
	typ := v.text("eventType")
	actor := v.first("actor.alternateId", "actor.id")
	v.set("metadata.event_code", typ)
	v.set("metadata.original_event_uid", v.text("uuid"))
	v.outcome(v.text("outcome.result"))
	target := v.first("target.alternateId", "target.id")
	switch {
	case typ == "user.session.start", strings.HasPrefix(typ, "user.authentication."):
		v.is(classAuth, 1)
		target = actor
	case typ == "user.session.end":
		v.is(classAuth, 2)
		target = actor
	case strings.HasPrefix(typ, "user.lifecycle."), strings.HasPrefix(typ, "user.account."), strings.HasPrefix(typ, "user.mfa.factor."):
		activity, ok := map[string]int{
			"user.lifecycle.create": 1, "user.lifecycle.activate": 2, "user.lifecycle.reactivate": 2, "user.lifecycle.unsuspend": 2, "user.lifecycle.suspend": 5,
			"user.lifecycle.deactivate": 5, "user.lifecycle.delete.completed": 6, "user.account.update_password": 3, "user.account.reset_password": 4,
			"user.account.lock": 9, "user.account.unlock": 12, "user.mfa.factor.activate": 10, "user.mfa.factor.deactivate": 11,
		}[typ]
		if !ok {
			activity = activityOther
		}
		v.is(classAccount, activity, typ)
	case typ == "group.user_membership.add":
		v.is(classGroup, 3)
	case typ == "group.user_membership.remove":
		v.is(classGroup, 4)
	case typ == "application.user_membership.add":
		v.is(classAccess, 1)
	case typ == "application.user_membership.remove":
		v.is(classAccess, 2)
	case strings.HasPrefix(typ, "policy."):
		v.is(classEntity, verbActivity(typ[strings.LastIndexByte(typ, '.')+1:]), typ)
		v.set("entity.name", v.text("target.displayName"))
		target = ""
	default:
		v.is(classAPI, activityOther, typ)
		v.set("api.operation", typ)
		v.set("api.service.name", "okta")
		target = ""
	}
	v.person("actor.user.uid", actor)
	if v.class != classEntity && v.class != classAPI {
		v.person("user.uid", target)
	}
	v.address("src_endpoint.ip", v.text("client.ipAddress"))
	v.set("src_endpoint.location.country", v.text("client.geographicalContext.country"))
	v.set("http_request.user_agent", v.text("client.userAgent.rawUserAgent"))
	v.set("status_detail", v.text("outcome.reason"))
}

// mdm maps the report of a device to inventory, and an act on it to the
// management of an entity.
func (v *view) mdm() {
	v.product = "Device management"
	switch action := strings.ToLower(v.text("action")); action {
	case "", "report", "check_in", "checkin":
		v.is(classInventory, 2)
	case "enroll", "enrol":
		v.is(classEntity, 6)
	case "unenroll", "unenrol":
		v.is(classEntity, 7)
	default:
		v.is(classEntity, activityOther, action)
	}
	if v.class == classEntity {
		v.device("entity.uid", v.text("device_id"))
		v.set("entity.type", "Device")
	}
	v.device("device.uid", v.text("device_id"))
	v.person("device.owner.uid", v.first("user", "owner_mail"))
	v.set("device.os.name", v.text("os"))
	v.set("device.os.version", v.text("os_version"))
	v.set("device.model", v.text("model"))
	v.set("device.location.country", v.text("country"))
	v.boolean("device.is_compliant", v.text("compliant"))
	v.boolean("device.is_supervised", v.text("supervised"))
	if v.text("jailbroken") == "true" {
		v.severity = 4
	} else if v.text("compliant") == "false" || v.text("encrypted") == "false" || v.text("passcode") == "false" {
		v.severity = 3
	}
}

// cloudtrail maps management calls of AWS.
func (v *view) cloudtrail() {
	v.product = "AWS CloudTrail"
	name := v.text("eventName")
	service := strings.TrimSuffix(v.text("eventSource"), ".amazonaws.com")
	v.status = statusSuccess
	if code := v.text("errorCode"); present(code) {
		v.status = statusFailure
		v.set("status_code", code)
	}
	if v.text("responseElements.ConsoleLogin") == "Failure" {
		v.status = statusFailure
	}
	actor := v.first("userIdentity.userName", "userIdentity.sessionContext.sessionIssuer.userName", "userIdentity.arn", "userIdentity.principalId", "userIdentity.invokedBy")
	user := v.text("requestParameters.userName")
	switch {
	case name == "ConsoleLogin":
		v.is(classAuth, 1)
		user = actor
		v.boolean("is_mfa", v.text("additionalEventData.MFAUsed"))
	case strings.HasPrefix(name, "AssumeRole"), name == "GetSessionToken", name == "GetFederationToken":
		v.is(classAuth, activityOther, name)
		user = v.first("requestParameters.roleArn", "userIdentity.arn")
	case service == "iam" && strings.Contains(name, "Group"):
		activity, ok := map[string]int{"AddUserToGroup": 3, "RemoveUserFromGroup": 4, "CreateGroup": 6, "DeleteGroup": 5, "AttachGroupPolicy": 1, "DetachGroupPolicy": 2}[name]
		if !ok {
			activity = activityOther
		}
		v.is(classGroup, activity, name)
		v.set("group.name", v.text("requestParameters.groupName"))
	case service == "iam" && (strings.Contains(name, "User") || strings.Contains(name, "AccessKey") || strings.Contains(name, "LoginProfile") || strings.Contains(name, "MFADevice")) && v.text("readOnly") != "true":
		activity, ok := map[string]int{
			"CreateUser": 1, "DeleteUser": 6, "AttachUserPolicy": 7, "PutUserPolicy": 7, "DetachUserPolicy": 8, "DeleteUserPolicy": 8, "ChangePassword": 3,
			"UpdateLoginProfile": 4, "EnableMFADevice": 10, "DeactivateMFADevice": 11,
		}[name]
		if !ok {
			activity = activityOther
		}
		v.is(classAccount, activity, name)
	case service == "iam" && v.text("readOnly") != "true":
		v.is(classEntity, verbActivity(name), name)
		v.set("entity.name", v.first("requestParameters.roleName", "requestParameters.policyName", "requestParameters.policyArn"))
	default:
		v.is(classAPI, apiActivity(name), name)
	}
	v.person("actor.user.uid", actor)
	switch v.class {
	case classAuth, classAccount, classGroup:
		v.person("user.uid", user)
	}
	v.set("actor.session.credential_uid", v.text("userIdentity.accessKeyId"))
	v.set("api.operation", name)
	v.set("api.service.name", service)
	v.set("cloud.provider", "AWS")
	v.set("cloud.region", v.text("awsRegion"))
	v.set("cloud.account.uid", v.first("recipientAccountId", "userIdentity.accountId"))
	if ip := v.text("sourceIPAddress"); !v.address("src_endpoint.ip", plainV4(ip)) {
		v.set("src_endpoint.svc_name", ip) // a service of the provider
	}
	v.set("http_request.user_agent", v.text("userAgent"))
	v.set("metadata.original_event_uid", v.text("eventID"))
	v.set("metadata.event_code", name)
}

// plainV4 takes the leading zeros off the parts of an IPv4 address.
func plainV4(s string) string {
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return s
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || len(p) > 3 {
			return s
		}
		parts[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(parts, ".")
}

// apiActivity reads the verb of a call.
func apiActivity(name string) int {
	for _, c := range []struct {
		activity int
		verbs    []string
	}{
		{2, []string{"Get", "List", "Describe", "Head", "BatchGet", "Lookup", "Query", "Scan", "Search", "Select", "Decrypt"}},
		{1, []string{"Create", "Run", "Import", "Register", "Allocate"}},
		{4, []string{"Delete", "Remove", "Terminate", "Deregister", "Release"}},
		{3, []string{"Update", "Modify", "Put", "Set", "Change", "Attach", "Detach", "Associate", "Disassociate", "Add", "Enable", "Disable", "Tag", "Untag"}},
	} {
		for _, verb := range c.verbs {
			if strings.HasPrefix(name, verb) {
				return c.activity
			}
		}
	}
	return activityOther
}

// verbActivity reads the verb of an act on an entity.
func verbActivity(name string) int {
	switch low := strings.ToLower(name); {
	case strings.HasPrefix(low, "create"):
		return 1
	case strings.HasPrefix(low, "update"), strings.HasPrefix(low, "put"), strings.HasPrefix(low, "set"), strings.HasPrefix(low, "attach"), strings.HasPrefix(low, "detach"):
		return 3
	case strings.HasPrefix(low, "delete"):
		return 4
	case strings.HasPrefix(low, "activate"):
		return 10
	case strings.HasPrefix(low, "deactivate"):
		return 11
	}
	return activityOther
}
