package pseudonym

import (
	"strings"
	"unicode"

	"github.com/counterseal/counterseal/internal/admit"
)

// stayNames stand for no person: rules ask for them by name, in the languages of
// Windows, and an investigator must see them. Folded. Accounts that attack tools
// create under fixed names are here for the same reason.
var stayNames = foldedSet(
	"-", "--", "?", "*", "n/a", "null", "none", "nil", "(null)", "unknown", "unset", "undefined", "<unknown>", "(unknown)", "(none)", "(empty)",
	// The system and its service accounts.
	"SYSTEM", "LOCAL SERVICE", "NETWORK SERVICE", "LocalSystem", "LocalService", "NetworkService", "ANONYMOUS LOGON", "ANONYMOUS", "TrustedInstaller",
	"LOKALER DIENST", "NETZWERKDIENST", "ANONYMOUS-ANMELDUNG", "Lokales System",
	"Système", "SERVICE LOCAL", "SERVICE RÉSEAU", "SERVICE RESEAU", "ANONYMOUS LOGON",
	"SISTEMA", "SERVICIO LOCAL", "SERVICIO DE RED", "Servicio de red",
	"SERVIZIO LOCALE", "SERVIZIO DI RETE", "Serviço local", "SERVIÇO LOCAL", "SERVIÇO DE REDE", "Serviço de rede",
	"СИСТЕМА", "LOCAL SERVICE", "NETWORK SERVICE", "SYSTEEM", "SYSTEMET", "JÄRJESTELMÄ", "SYSTÉM", "RENDSZER", "SİSTEM", "SİSTEM", "HELYI SZOLGÁLTATÁS", "HÁLÓZATI SZOLGÁLTATÁS",
	"USŁUGA LOKALNA", "USŁUGA SIECIOWA", "NETVÆRKSTJENESTE", "LOKAL TJENESTE", "NÄTVERKSTJÄNST", "LOKAL TJÄNST", "NETTVERKSTJENESTE",
	"Everyone", "Jeder", "Authenticated Users", "INTERACTIVE", "INTERAKTIV", "BATCH", "SERVICE", "NETWORK", "DIALUP", "SELF", "CREATOR OWNER", "OWNER RIGHTS", "Users", "Administrators", "Administratoren", "Administrateurs", "Administradores",
	// Built-in accounts with a security meaning.
	"Administrator", "Administrateur", "Administrador", "Amministratore", "Администратор", "Järjestelmänvalvoja", "Rendszergazda", "Administratör", "Beheerder", "Administrátor", "Yönetici",
	"Guest", "Gast", "Invité", "Invitado", "Convidado", "Ospite", "Гость",
	"DefaultAccount", "WDAGUtilityAccount", "krbtgt", "HomeGroupUser$", "HelpAssistant", "SUPPORT_388945a0", "defaultuser0", "defaultuser1", "ASPNET", "admin",
	// Names of images and installers: whoever uses one is called like everybody else.
	"user", "test", "vagrant", "ubuntu", "centos", "debian", "ec2-user", "azureuser",
	// Unix.
	"root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data", "backup", "list", "irc", "gnats", "nobody", "nogroup",
	"systemd-network", "systemd-resolve", "systemd-timesync", "systemd-coredump", "systemd-oom", "messagebus", "syslog", "_apt", "tss", "uuidd", "tcpdump", "landscape", "pollinate", "sshd", "polkitd", "rtkit",
	"dbus", "chrony", "ntp", "rpc", "rpcuser", "nfsnobody", "postfix", "dovecot", "named", "bind", "apache", "nginx", "httpd", "mysql", "postgres", "redis", "mongodb", "tomcat", "elasticsearch", "kibana", "logstash", "docker", "git", "iusr", "jenkins", "puppet", "zabbix", "nagios", "ftp", "operator", "shutdown", "halt", "adm", "wheel", "sudo", "nobody4", "_spotlight", "_windowserver", "_mbsetupuser", "loginwindow", "kernel", "audit", "unprivileged",
	// Cloud.
	"HIDDEN_DUE_TO_SECURITY_REASONS", "ANONYMOUS_PRINCIPAL", "AWS Internal", "AWSService", "system:anonymous", "system:serviceaccount", "NOT_APPLICABLE", "Microsoft Graph", "Azure AD", "Windows Azure Active Directory",
	// Workstation strings of remote-access clients and attack tools.
	"localhost", "Remmina", "Freerdp", "Freerdp0.x", "RULER", "kali", "mstsc", "rdesktop", "nmap", "workstation",
)

// stayPrefixes are account names that a product makes: a prefix and a number.
var stayPrefixes = [...]string{"msol_", "samtheadmin-", "umfd-", "dwm-", "healthmailbox", "sm_", "aad_"}

// stayTrees are names of machines in Kubernetes; a path follows.
var stayTrees = [...]string{"system:node:", "system:serviceaccount:", "system:kube-"}

// stayDomains hold built-in principals: everything below them stays.
var stayDomains = foldedSet(
	"NT AUTHORITY", "NT-AUTORITÄT", "AUTORITE NT", "AUTORITÉ NT", "NT AUTORITY", "AUTORIDAD NT", "NT AUTORIDAD", "AUTORIDADE NT", "NT AUTORITÀ", "AUTORITÀ NT", "NT INSTANS", "NT-INSTANS", "NT-MYNDIGHET", "ZARZĄDZANIE NT", "NT-HATÓSÁG", "NT AUTORITA", "NT YETKİLİSİ",
	"BUILTIN", "VORDEFINIERT", "PREDEFINITO", "NT SERVICE", "NT-DIENST", "Window Manager", "Font Driver Host", "IIS APPPOOL", "NT VIRTUAL MACHINE", "APPLICATION PACKAGE AUTHORITY", "Mandatory Label",
)

// sharedFolders are profile folders of nobody.
var sharedFolders = foldedSet(
	"Public", "Default", "Default User", "All Users", "systemprofile", "NetworkService", "LocalService", "Shared", "defaultuser0", "lost+found", ".", "..", "Default.migrated", "DefaultAppPool", "Classic .NET AppPool", "MSSQLSERVER", "ADMINI~1", "DEFAUL~1", "ALLUSE~1", "NETWOR~1", "LOCALS~1", "PUBLIC~1", "Publico", "Öffentlich", "linuxbrew",
)

func foldedSet(words ...string) map[string]bool {
	m := make(map[string]bool, len(words))
	for _, w := range words {
		m[admit.Fold(w)] = true
	}
	return m
}

// isStayName decides about a folded account name without domain.
func isStayName(n string) bool {
	if stayNames[n] {
		return true
	}
	for _, p := range stayPrefixes {
		if rest, ok := strings.CutPrefix(n, p); ok && strings.Trim(rest, "0123456789abcdef-") == "" {
			return true
		}
	}
	for _, p := range stayTrees {
		if strings.HasPrefix(n, p) {
			return true
		}
	}
	// admin01 names a role; admin.alice does not.
	if rest, ok := strings.CutPrefix(n, "admin"); ok && strings.Trim(rest, "0123456789_-") == "" {
		return true
	}
	// %%1793 is a text that Windows looks up in a message table.
	if rest, ok := strings.CutPrefix(n, "%%"); ok && isDigits([]byte(rest)) {
		return true
	}
	return isSystemNumber(n) || !strings.ContainsFunc(n, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}

// isSystemNumber tells user numbers below 1000 and the marks for "unset".
func isSystemNumber(n string) bool {
	if n == "-1" || n == "4294967295" || n == "65534" {
		return true
	}
	if n == "" || len(n) > 3 {
		return false
	}
	for i := range len(n) {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	return true
}

func isSharedFolder(n string) bool {
	return sharedFolders[n] || isStayName(n) || strings.ContainsAny(n, "%$*{}<>")
}
